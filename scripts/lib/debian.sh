# For the scripts that need programs of Debian: fetches packages and unpacks them, installing nothing. To be read in by a
# script that has `fail` and `cache`, and holds the lock on the cache.

# The archive of this machine's Debian, from its own sources: the same mirror has the other releases.
archive() {
    (
        . /etc/os-release
        apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
            awk -v own="${VERSION_CODENAME:-sid}" '$3 == "main" && ($2 == own || $2 == "sid" || $2 == "unstable") { print $1; exit }'
    )
}

# unpack DIRECTORY PROGRAM RELEASE PACKAGE...: the packages of that release with all their libraries, which have PROGRAM. The
# machine's own packages stay as they are.
unpack() {
    local root=$1 program=$2 release=$3 apt=$cache/apt keyring=/usr/share/keyrings/debian-archive-keyring.gpg archive package
    shift 3
    command -v apt-get dpkg-deb >/dev/null || fail "no $program is here that will do, and without apt-get none can be fetched"
    archive=$(archive)
    [ -n "$archive" ] && [ -e $keyring ] ||
        fail "no $program is here that will do, and apt's sources name no archive of Debian to fetch it from"
    echo "${0##*/}: fetching $program from Debian's archive" >&2
    rm -rf "$apt" "$root"
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial} "$root"/{dev,mnt,tmp,usr/{bin,sbin,lib,lib64}}
    # Nothing counts as installed, so that every library comes along.
    : >"$apt/status"
    echo "deb [signed-by=$keyring] $archive $release main" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "-";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
CONF
    export APT_CONFIG=$apt/apt.conf
    {
        apt-get -q --error-on=any update && apt-get -q -y --download-only install "$@"
    } >"$cache/fetch.log" 2>&1 || fail "$program cannot be had: $(grep -m 1 '^E:' "$cache/fetch.log" || tail -n 1 "$cache/fetch.log")"
    unset APT_CONFIG
    # What the packages take to be there already.
    ln -s usr/{bin,sbin,lib,lib64} "$root"
    for package in "$apt"/cache/archives/*.deb; do
        dpkg-deb --extract "$package" "$root"
    done
    # Who the servers take themselves for.
    [ -e "$root/etc/passwd" ] || echo daemon:x:1:1::/: >"$root/etc/passwd"
    rm -rf "$apt"
    touch "$root/complete"
}
