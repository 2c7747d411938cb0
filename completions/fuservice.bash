# bash completion for fuservice(1), made by `fuservice completion bash'.

_fuservice_mounts() {
    local point type; while read -r _ point type _; do [[ $type == fuse* ]] && printf '%b\n' "${point//\\0/\\00}"; done </proc/self/mounts
}

_fuservice() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} offer=
    # bash takes --name=value for three words.
    if [[ $current == = ]]; then current=; elif [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then offer="mount umount list run enter why log check drivers doctor listen serve units broker prove config completion --help --version"; else
        case ${COMP_WORDS[1]} in
            mount)
                case $before in
                    -t) offer='ext2 ext3 ext4 memtree' ;;
                    -o) offer='' ;;
                    --name) offer='' ;;
                    --timeout) offer='' ;;
                    --via) offer='root fusermount3 broker namespace' ;;
                    *) if [[ $current == -* ]]; then offer='-h --help -t -o --rw --name --timeout -v --verbose --direct --transient --via --private --restart --json'; else offer='files'; fi ;;
                esac ;;
            umount)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help -a --all -l --lazy'; else offer='mounts'; fi ;;
                esac ;;
            list)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help --json --all --plain'; else offer='-h --help --json --all --plain'; fi ;;
                esac ;;
            run)
                case $before in
                    -t) offer='ext2 ext3 ext4 memtree' ;;
                    -o) offer='' ;;
                    --name) offer='' ;;
                    --timeout) offer='' ;;
                    *) if [[ $current == -* ]]; then offer='-h --help -t -o --rw --name --timeout -v --verbose'; else offer='files'; fi ;;
                esac ;;
            enter)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help'; else offer='mounts'; fi ;;
                esac ;;
            why)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help --json'; else offer='mounts'; fi ;;
                esac ;;
            log)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help'; else offer='mounts'; fi ;;
                esac ;;
            check)
                case $before in
                    -t) offer='ext2 ext3 ext4 memtree' ;;
                    --seconds) offer='' ;;
                    *) if [[ $current == -* ]]; then offer='-h --help -t --seconds --json'; else offer='files'; fi ;;
                esac ;;
            drivers)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help --json --plain'; else offer='-h --help --json --plain'; fi ;;
                esac ;;
            doctor)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help --json'; else offer='-h --help --json'; fi ;;
                esac ;;
            listen)
                case $before in
                    --socket-dir) offer='directories' ;;
                    --socket-mode) offer='' ;;
                    --per-uid) offer='' ;;
                    --fresh-after) offer='' ;;
                    --cage) offer='' ;;
                    *) if [[ $current == -* ]]; then offer='-h --help --socket-dir --socket-mode --per-uid --fresh-after --cage --debug --prove-first --dry-run'; else offer='ext2 ext3 ext4 memtree'; fi ;;
                esac ;;
            serve)
                case $before in
                    --cage) offer='' ;;
                    *) if [[ $current == -* ]]; then offer='-h --help --cage --debug'; else offer='ext2 ext3 ext4 memtree'; fi ;;
                esac ;;
            units)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help'; else offer='install remove status'; fi ;;
                esac ;;
            broker)
                case $before in
                    --socket) offer='' ;;
                    *) if [[ $current == -* ]]; then offer='-h --help --socket --dry-run'; else offer='-h --help --socket --dry-run'; fi ;;
                esac ;;
            prove)
                case $before in
                    --unit) offer='' ;;
                    *) if [[ $current == -* ]]; then offer='-h --help --listen --serve --direct --unit --list --json'; else offer='ext2 ext3 ext4 memtree'; fi ;;
                esac ;;
            config)
                case $before in
                    --variable) offer='' ;;
                    *) if [[ $current == -* ]]; then offer='-h --help --variable'; else offer='-h --help --variable'; fi ;;
                esac ;;
            completion)
                case $before in
                    *) if [[ $current == -* ]]; then offer='-h --help'; else offer='bash zsh fish'; fi ;;
                esac ;;
        esac
    fi
    case $offer in
        files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        directories) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        mounts) compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(_fuservice_mounts | while IFS= read -r point; do [[ $point == "$current"* ]] && printf "%s\n" "$point"; done
                compgen -f -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$offer" -- "$current") ;;
    esac
}

complete -F _fuservice fuservice
