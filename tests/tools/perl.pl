# Perl's files: open, sysopen, seek, truncate, flock, File::Copy, File::Temp, -i, pipes.
use strict; use warnings; use Fcntl qw(:DEFAULT :flock :seek); use File::Copy; use File::Temp; use File::Path; use IO::File; use Cwd;
my $N=$ENV{N}; open(my $o,'>',"$N/a") or die; print $o "line $_\n" for 1..5000; close $o or die;
open(my $i,'<',"$N/a") or die; my $n=0; $n++ while <$i>; print "$n ", tell($i), " ", eof($i)?1:0, "\n"; seek($i,-10,SEEK_END); print scalar(<$i>); print scalar(<$i>); close $i;
open(my $a,'>>',"$N/a"); print $a "end\n"; close $a; print -s "$N/a", "\n";
open(my $rw,'+<',"$N/a"); seek($rw,5,0); print $rw "XYZ"; seek($rw,0,0); print scalar(<$rw>); truncate($rw,20); seek($rw,0,0); my @l=<$rw>; print @l,"\n"; close $rw;
sysopen(my $s,"$N/s",O_RDWR|O_CREAT|O_EXCL,0600) or die; syswrite($s,"0123456789"x1000); sysseek($s,5,SEEK_SET); sysread($s,my $b,7); print "$b ",sysseek($s,0,SEEK_CUR),"\n"; flock($s,LOCK_EX) or die; flock($s,LOCK_UN); close $s;
sysopen($s,"$N/s",O_RDWR|O_CREAT|O_EXCL,0600) and die; print 0+$!,"\n";
copy("$N/s","$N/c") or die; move("$N/c","$N/m") or die; print -s "$N/m","\n"; copy("$N/m","out"); print -s "out","\n"; move("out","$N/in"); print -s "$N/in","\n";
my($th,$tn)=File::Temp::tempfile(DIR=>$N); print $th "t"; close $th; print -s $tn,"\n"; unlink $tn;
mkpath("$N/x/y/z"); opendir(my $d,$N); print join(",",sort grep {!/^\./} readdir $d),"\n"; closedir $d; rmtree("$N/x"); print -e "$N/x"?1:0,"\n";
chdir $N; print getcwd() eq $N ? "cwd\n":getcwd()."\n"; print join(",",sort glob("*")),"\n"; my @g=glob("$N/*"); print scalar(@g),"\n"; utime(100,200,"$N/s"); print((stat "$N/s")[9],"\n"); chmod 0644,"$N/s"; printf "%o\n",(stat _)[2]&0777; rename "s","s2"; print -e "s2"?1:0,"\n"; unlink glob("$N/*"); print scalar(@{[glob("$N/*")]}),"\n";
open(my $p,'|-',"cat > $N/p") or die; print $p "piped\n"; close $p; print `cat $N/p`; { local @ARGV=("$N/p"); local $^I='.bak'; while(<>){s/piped/PIPED/; print;} } print `cat $N/p $N/p.bak`; open(STDOUT,'>>',"$N/p"); print "to file\n"; system("echo child"); close STDOUT; open(STDERR,'>',"err"); exec("cat","$N/p") if 0;
