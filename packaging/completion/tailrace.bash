# bash completion for tailrace
_tailrace()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}
    case $prev in
    -c|--config|--file|--path|--state) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --format) COMPREPLY=($(compgen -W 'text json ndjson' -- "$cur")); return ;;
    --from) COMPREPLY=($(compgen -W 'beginning end 24h' -- "$cur")); return ;;
    esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W 'run check explain health levels status queue archive version --help --version' -- "$cur"))
        return
    fi
    case $cmd in
    run) COMPREPLY=($(compgen -W '-c --config --stdout --state --from --admin --help' -- "$cur") $(compgen -f -- "$cur")) ;;
    check) COMPREPLY=($(compgen -W '-c --config --connect --quiet --help' -- "$cur")) ;;
    explain) COMPREPLY=($(compgen -W '-c --config --input --path --file --lines --labels --annotation --help' -- "$cur")) ;;
    levels) COMPREPLY=($(compgen -W 'set ls clear --for --format -c --config --help' -- "$cur")) ;;
    health) COMPREPLY=($(compgen -W 'live ready -c --config --format --watch --help' -- "$cur")) ;;
    status) COMPREPLY=($(compgen -W '-c --config --help' -- "$cur")) ;;
    queue) COMPREPLY=($(compgen -W 'ls verify cat export dead resend drop skip -c --config --format --dead --parked --all --reason --help' -- "$cur")) ;;
    archive) COMPREPLY=($(compgen -W 'ls export verify -c --config -o --output --tenant --from --to --format --hash --help' -- "$cur")) ;;
    esac
}
complete -F _tailrace tailrace
