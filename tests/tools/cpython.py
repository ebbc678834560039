# CPython's own tests of files and maps, with their files in $N: what fails, and how many ran.
import os, sys, unittest

# What needs what regions do not have; each group with its reason.
NEEDS = {
    'a region is no pipe, socket or device':
        'mkfifo mknod named_pipe is_fifo is_socket is_char is_block',
    'the owner may do everything in a directory of regions':
        'MakedirTests.test_mode test_mkdir_parents',
    'names are UTF-8':
        'nonascii undecodable non_utf8 Unencodable nonunicode bytes_path Pep383Tests',
    'the system, not files: users, groups, terminals, processes, times to the second':
        'setgroups initgroups getgrouplist pty sched posix_spawn cpu_count',
}
SKIPPED = [part for parts in NEEDS.values() for part in parts.split()]


def tests_of(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        else:
            yield test


def main():
    place = os.environ['N'] + '/cpython'
    os.mkdir(place)
    os.chdir(place)
    os.environ['TMPDIR'] = place
    chosen, left_out = unittest.TestSuite(), 0
    for name in sys.argv[1:]:
        for test in tests_of(unittest.defaultTestLoader.loadTestsFromName('test.' + name)):
            if any(part in test.id() for part in SKIPPED):
                left_out += 1
            else:
                chosen.addTest(test)
    # Some tests print, and what they print may be the length of a path.
    said, sys.stdout = sys.stdout, open(os.devnull, 'w')
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(chosen)
    sys.stdout = said
    for test, trace in result.failures + result.errors:
        print('failed:', test.id())
        print(trace, file=sys.stderr)
    print(result.testsRun, 'ran,', left_out, 'left out')


main()
