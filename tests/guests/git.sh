# git in a local directory: the same commits, packs and clone.
rm -rf repo clone; export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z' HOME=$PWD
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main repo; cd repo; for i in 1 2 3 4 5; do seq $i 1000 > f; git add f; git commit -qm $i; done
git gc -q; git fsck --strict; git clone -q . ../clone; git -C ../clone log --format='%H %s'; md5sum < ../clone/f
