#include "agent/cli/cli.h"

int cmd_queue(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return cli_misuse("queue", "not there yet");
}
