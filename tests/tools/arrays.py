# numpy.memmap in all its modes, np.save and np.load, tofile and fromfile.
import os, sys
import numpy as np

N = os.environ['N']
path = N + '/array'
a = np.memmap(path, dtype='f8', mode='w+', shape=(300, 700))
a[:] = np.arange(210000).reshape(300, 700)
a[100] *= 2
a.flush()
print(os.path.getsize(path), a.sum())
r = np.memmap(path, dtype='f8', mode='r', shape=(300, 700))
print((r == a).all(), r[100, 5])
try:
    r[0] = 1
except ValueError as error:
    print(error)
c = np.memmap(path, dtype='f8', mode='c', shape=(300, 700))
c[5] = -1
print(c[5].sum(), r[5].sum())
p = np.memmap(path, dtype='f8', mode='r+', offset=8 * 700, shape=(2, 700))
p[0, :] = 7
p[1, 699] = np.nan
print(r[1].sum(), np.isnan(a[2, 699]), c[1].sum())
del a, r, c, p
g = np.memmap(path, dtype='u1', mode='r+', shape=(2000000,))
g[-1] = 9
g.flush()
print(os.path.getsize(path), int(g[1680000:].sum()), np.median(g[::100]))
del g

b = np.random.default_rng(1).integers(0, 1 << 30, 200000)
np.save(N + '/b.npy', b)
print((np.load(N + '/b.npy') == b).all(), (np.load(N + '/b.npy', mmap_mode='r') == b).all())
m = np.load(N + '/b.npy', mmap_mode='r+')
m.sort()
m.flush()
print((np.load(N + '/b.npy') == np.sort(b)).all())
np.savez(N + '/z.npz', b=b, c=np.eye(50))
np.savez_compressed(N + '/zc.npz', b=b)
z = np.load(N + '/z.npz')
print(z.files, (z['b'] == b).all(), z['c'].trace(), (np.load(N + '/zc.npz')['b'] == b).all())
b.tofile(N + '/raw')
print((np.fromfile(N + '/raw', dtype=b.dtype) == b).all(), (np.fromfile(N + '/raw', dtype=b.dtype, count=10, offset=80) == b[10:20]).all())
with open(N + '/both', 'wb') as f:
    f.write(b'head')
    b.tofile(f)
with open(N + '/both', 'rb') as f:
    f.seek(4)
    print((np.fromfile(f, dtype=b.dtype) == b).all(), f.tell())
np.savetxt(N + '/t.txt', b[:100], fmt='%d')
print((np.loadtxt(N + '/t.txt', dtype=b.dtype) == b[:100]).all())
o = np.lib.format.open_memmap(N + '/o.npy', mode='w+', dtype='i4', shape=(64, 64))
o[:] = 3
o.flush()
print(np.load(N + '/o.npy').sum(), sorted(os.listdir(N)))
