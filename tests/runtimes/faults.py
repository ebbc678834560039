# CPython's faulthandler: a mapped file is loaded with it in place, and then a real fault is its own. Usage: faults.py FILE write|read|fault
import ctypes, faulthandler, mmap, os, sys, threading

faulthandler.enable()
PAGE, PAGES = 4096, 512
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(fd, PAGE * PAGES)
m = mmap.mmap(fd, PAGE * PAGES)
if sys.argv[2] == "write":
    for i in range(PAGES):
        m[i * PAGE + i] = i % 256
total = [0] * 4
def add(worker):
    total[worker] = sum(m[i * PAGE + i] for i in range(worker, PAGES, 4))
threads = [threading.Thread(target=add, args=(i,)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
m.flush()
print(total, flush=True)
if sys.argv[2] == "fault":
    ctypes.string_at(8)
