/* driver.c - libFuzzer's entry for one target; FUZZ_FUNCTION is given by the Makefile. */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return FUZZ_FUNCTION(data, size);
}
