#!/bin/sh
# check-arrows.sh: includes point one way (docs/ARCHITECTURE.md, "Folders"): base <- parsers, outputs, conf <- agent.
set -u
bad=0
wrong() { # FOLDER-FILES PATTERN-OF-FORBIDDEN-INCLUDES
    grep -nE "#include \"($2)" $1 /dev/null && bad=1
}
wrong "$(echo agent/base/*.[ch])" 'parsers/|outputs/|conf/|agent/[^b]|agent/b[^a]'
wrong "$(echo parsers/*.[ch])" 'outputs/|conf/|agent/[^b]'
wrong "$(echo outputs/*.[ch] outputs/codec/*.[ch])" 'parsers/|conf/|agent/[^b]'
wrong "$(echo conf/*.[ch])" 'parsers/|outputs/|agent/[^b]'
wrong "$(echo agent/queue/*.[ch])" 'parsers/|outputs/|conf/|agent/(tail|deliver|admin)|agent/[a-z]*\.h'
wrong "$(echo agent/tail/*.[ch])" 'parsers/|outputs/|agent/(deliver|admin)/|agent/[a-z]*\.h'
wrong "$(echo agent/deliver/*.[ch])" 'parsers/|conf/|agent/(tail|admin)/'
[ $bad -eq 0 ] || { echo "check-arrows: an include points back against the tree"; exit 1; }
