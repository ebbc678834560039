# The JVM, which has its own SIGSEGV and compiles at run time: a key store is made, filled and listed.
rm -f ks; unset JAVA_TOOL_OPTIONS
keytool -genseckey -alias one -keyalg AES -keysize 128 -keystore ks -storepass secret123 -storetype PKCS12 2>&1
keytool -genkeypair -alias two -keyalg EC -dname CN=two -keystore ks -storepass secret123 2>&1
keytool -list -keystore ks -storepass secret123 2>&1 | grep -c Entry; rm ks
