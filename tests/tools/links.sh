# Symbolic and hard links, as archives, copies, version control and languages make, keep and follow them.
cd "$N"
mkdir src src/sub
echo hello >src/a
ln src/a src/b
ln src/a src/sub/c
ln -s a src/l
ln -s sub src/dir
ln -s /etc/passwd src/out
ln -s none src/dangling
ln -s ../sub/c src/sub/back
describe() {
    (
        cd "$1"
        find . -not -name .git -not -path '*/.git/*' | sort | while read -r name; do
            if [ -L "$name" ]; then
                echo "$name -> $(readlink "$name")"
            elif [ -f "$name" ]; then
                echo "$name has $(stat -c %h "$name") names: $(cat "$name")"
            else
                echo "$name/"
            fi
        done
    )
}
describe src
describe src >there
tar cf t.tar src
mkdir unpacked
tar xf t.tar -C unpacked
describe unpacked/src | cmp - there
cp -a src copied
describe copied | cmp - there
cp -al src/sub linked
describe linked
rm -r linked
rsync -aH src/ synced
describe synced | cmp - there
rm synced/b
rsync -aH --delete src/ synced
describe synced | cmp - there
cmp src/l src/dir/back
find -L src -type f | sort
stat -c '%N %F' src/* src/dir/c | sed "s,$N,N,"
du -a src | cut -f 2 | sort
realpath src/dir/back | sed "s,$N,N,"
(cd src/dir/.. && pwd -P | sed "s,$N,N,")
echo more >>src/sub/back
cat src/b
mkdir repository
cd repository
export GIT_CONFIG_NOSYSTEM=1
git init -q -b main
cp -a ../src/. .
git add -A
git -c user.name=n -c user.email=e commit -qm one
git ls-files -s | awk '{ print $1, $4 }'
rm -r l dir sub
git checkout -q .
readlink l dir sub/back
cd ..
git clone -q repository clone
describe clone
ln -sfn a clone/dangling
git -C clone status --short
git -C clone fsck
python3 - <<'END'
import os, pathlib, shutil
os.symlink("made", "python")
pathlib.Path("python").write_text("through")
print(os.readlink("python"), os.path.islink("python"), open("made").read(), os.path.realpath("python") == os.path.abspath("made"))
shutil.copytree("src", "tree", symlinks=True)
print(sorted((entry.name, entry.is_symlink(), entry.is_dir()) for entry in os.scandir("tree")))
os.link("made", "again")
print(os.stat("again").st_nlink, os.path.samefile("made", "again"), os.lstat("python").st_size)
shutil.rmtree("tree")
END
perl -e 'link "made", "third" or die; print +(stat "third")[3], readlink "python", -l "python" ? " link\n" : "\n"'
rm -r ./*
ls
