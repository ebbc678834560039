# git: sixty commits, branches, a merge, packing, a check, a clone, a bare repository to push to.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z'
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
mkdir "$N/repo"; cd "$N/repo"; git init -q -b main; git config core.symlinks true; git config gc.auto 0
for i in $(seq ${COMMITS:-60}); do seq $i $((i * 20)) > f$((i % 7)); echo $i > new$i; git add -A; git commit -qm "commit $i"; done
git rev-parse HEAD; git status --short; git log --oneline | wc -l; git switch -qc side HEAD~5; echo side > side; git add side; git commit -qm side; git switch -q main; git merge -q -m merged side; git rev-parse HEAD
git gc -q --prune=now; git fsck --full --strict; git count-objects -v | grep -E '^(count|packs|garbage)'; git repack -adfq; git fsck
git clone -q . ../clone; git -C ../clone rev-parse HEAD; diff -r --exclude=.git . ../clone && echo cloned; git clone -q --bare . ../bare.git
cd ../clone; echo pushed > p; git add p; git commit -qm pushed; git push -q ../bare.git main; git -C ../bare.git log -1 --format=%s main; git stash list; echo dirty > f1; git stash -q; git stash pop -q; git diff --stat | tail -1; git checkout -q -- f1; git grep -c 777 | head -2; git worktree add -q ../tree HEAD~2; git -C ../tree rev-parse HEAD; git blame f2 | tail -1 | cut -c 10-; git archive HEAD~4 | tar tf - | wc -l; git fsck
