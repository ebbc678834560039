# make and gcc where sources, objects and programs lie below $N. The program that was built is copied out to be run: a region can't be
# executed.
export OUT=$PWD
mkdir "$N/b"; cd "$N/b"
cat > Makefile <<'E'
CFLAGS = -O1
all: hello out
hello: main.o lib.a
	gcc -o $@ main.o lib.a
lib.a: lib.o
	ar rcs $@ $^
out: hello
	cp hello $(OUT)/hello && $(OUT)/hello > $@
clean:
	rm -f *.o *.a hello out
E
printf '#include "lib.h"\n#include <stdio.h>\nint main(void) { printf("%%d\\n", twice(21)); return 0; }\n' > main.c
printf 'int twice(int);\n' > lib.h; printf '#include "lib.h"\nint twice(int n) { return 2 * n; }\n' > lib.c
make -s; cat out; make; touch lib.c; make -s -j2 && cat out; ls; strip hello; cp hello "$OUT/stripped"; "$OUT/stripped"; cd ..; nm -C b/lib.a | awk 'NF == 3 {print $2, $3}'; make -sC b clean; ls b
