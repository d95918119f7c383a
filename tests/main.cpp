// The entry point of stet_tests. Catch2 does all the work; a session of our own keeps one source right for
// versions 2 and 3.
#define CATCH_CONFIG_RUNNER
#include "support/catch.h"

int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
