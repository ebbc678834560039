# Cache::FastMmap: a cache in a mapped file, locked by fcntl, shared by processes that are forked, emptied and read back.
use strict; use warnings; use Cache::FastMmap; my $N = $ENV{N};
my $c = Cache::FastMmap->new(share_file => "$N/cache", init_file => 1, raw_values => 1, num_pages => 13, page_size => 65536, unlink_on_exit => 0);
$c->set("k$_", "v" x $_) for 1 .. 400; my $right = grep { ($c->get("k$_") // '') eq "v" x $_ } 1 .. 400; print "$right\n";
print join(',', sort grep { /^k1.$/ } $c->get_keys(0)), "\n"; $c->remove("k5"); print defined $c->get("k5") ? 1 : 0, "\n";
my @p; for my $n (1 .. 3) { my $p = fork // die; if (!$p) { for (1 .. 100) { $c->get_and_set("count", sub { ($_[1] // 0) + 1 }); $c->set("p$n-$_", $n) } exit 0 } push @p, $p } waitpid $_, 0 for @p;
print $c->get("count"), "\n"; print scalar(grep { defined $c->get("p$_->[0]-$_->[1]") } map { my $n = $_; map { [$n, $_] } 1 .. 100 } 1 .. 3), "\n"; undef $c;
my $d = Cache::FastMmap->new(share_file => "$N/cache", init_file => 0, raw_values => 1, num_pages => 13, page_size => 65536, unlink_on_exit => 0); print $d->get("count"), " ", length($d->get("k300")), "\n"; $d->clear; print scalar(() = $d->get_keys(0)), "\n";
my $e = Cache::FastMmap->new(share_file => "$N/complex", init_file => 1, num_pages => 3, page_size => 8192); $e->set("h", { a => [1, 2, 3] }); print $e->get("h")->{a}[2], "\n"; print -s "$N/cache", "\n";
