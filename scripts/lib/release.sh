# What scripts/release is made of; it has to be read in by that.

step() {
    printf '\n== %s (at %dm%02ds)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60))
}

# Nothing stays on an engine but what was there before, and nothing of this in the machine's temporary directory.
clean() {
    local image
    if [ -n "$images" ]; then
        # Also where the engine is gone.
        take_away_computers || true
        for image in raworc/raworc raworc/computer; do
            docker image rm --force "$image:$version" >/dev/null 2>&1 || true
        done
    fi
    rm -rf "$work"
}

# A command of Raworc, with a home of its own.
raworc() {
    local home=$work/home
    mkdir -p "$home"
    env -u XDG_CONFIG_HOME -u XDG_DATA_HOME HOME="$home" "$work/unpacked/raworc" "$@"
}

# pack NAME FILE..: an archive that is the same whenever and by whomever it is made.
pack() {
    tar --create --directory "$work/${1%%.tar.gz}" --transform "s,^\.,${1%%.tar.gz}," --sort=name --owner=0 --group=0 \
        --numeric-owner --mode=go=u,go-w --mtime="@$SOURCE_DATE_EPOCH" . | gzip --no-name --best >"$directory/$1"
}

make_binaries() {
    local name=raworc-$version-$target agentd binary path
    cargo build --quiet --locked --release --target "$target" --package raworc-cli --features full
    agentd=$(scripts/agentd release)
    mkdir "$work/$name"
    cp "$built/$target/release/raworc" "$agentd" README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$work/$name"
    pack "$name.tar.gz"

    mkdir "$work/unpacked"
    tar --extract --file "$directory/$name.tar.gz" --directory "$work/unpacked" --strip-components=1
    [ "$(raworc version --output json | jq -r .version)" = "$version" ] || fail "raworc is not $version: $(raworc version)"
    for binary in raworc raworc-agentd; do
        for path in "${elsewhere[@]%=*}"; do
            ! grep --quiet --text --fixed-strings "$path/" "$work/unpacked/$binary" ||
                fail "$binary names $path of this machine: $(strings "$work/unpacked/$binary" | grep -m 1 -F "$path/")"
        done
    done
    ldd "$work/unpacked/raworc-agentd" 2>&1 | grep -q 'statically linked' || fail 'raworc-agentd is not linked statically'
    needs=$(objdump -T "$work/unpacked/raworc" | grep -oE 'GLIBC_[0-9.]+' | sort --version-sort --unique | tail -n 1)
    needs="glibc ${needs#GLIBC_}"
    tour local
}

# tour RUNTIME: the whole life of an agent, with what was unpacked.
tour() {
    raworc quickstart --exit --no-model --listen 127.0.0.1:0 --log warn --data "$work/$1" --runtime "$1" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        fail "raworc quickstart --runtime $1 went wrong, see above"
    }
    echo "raworc quickstart --runtime $1: an agent worked, slept, woke, and had its files"
}

make_crates() {
    local crate
    mapfile -t crates < <(cargo metadata --no-deps --format-version 1 --locked |
        jq -r '.packages[] | select(.publish == null) | .name')
    rm -rf "$built/package"
    cargo package --quiet --locked --no-verify $changed "${crates[@]/#/--package=}"
    cp "$built"/package/*.crate "$directory"
    for crate in "${crates[@]}"; do
        [ -e "$directory/$crate-$version.crate" ] || fail "cargo has made no package of $crate $version"
        tar --extract --file "$directory/$crate-$version.crate" --directory "$work"
        for file in README.md LICENSE-APACHE LICENSE-MIT; do
            [ -s "$work/$crate-$version/$file" ] || fail "the package of $crate lacks its $file"
        done
    done
}

# Examples' program on SQLite and local computers, and the command line, by the packages alone. The crates that they depend on
# are those of the release build; ours are built anew, and need not be fast.
try_crates() {
    local outside=$work/outside crate told
    mkdir "$outside"
    cp examples/examples/local.rs "$outside/"
    echo 'fn main() -> std::process::ExitCode { raworc_cli::main() }' >"$outside/raworc.rs"
    cp Cargo.lock "$outside/"
    {
        printf '[package]\nname = "outside"\nedition = "2024"\n'
        printf '[[bin]]\nname = "outside-%s"\npath = "%s.rs"\n' local local raworc raworc
        printf '[workspace]\n[dependencies]\nanyhow = "1"\ntempfile = "3"\ntokio = "1"\ntokio-util = "0.7"\n'
        printf 'raworc-backends = { version = "%s", features = ["sqlite", "local"] }\n' "$version"
        printf 'raworc-http = { version = "%s", features = ["server"] }\n' "$version"
        printf 'raworc-cli = { version = "%s", features = ["full"] }\n' "$version"
        printf 'raworc-agent = "%s"\nraworc-core = "%s"\n[patch.crates-io]\n' "$version" "$version"
        for crate in "${crates[@]}"; do printf '%s = { path = "../%s-%s" }\n' "$crate" "$crate" "$version"; done
        printf '[profile.release]\nstrip = "symbols"\n'
        for crate in outside "${crates[@]}"; do printf '[profile.release.package.%s]\nopt-level = 0\n' "$crate"; done
    } >"$outside/Cargo.toml"
    (cd "$outside" && CARGO_TARGET_DIR=$built cargo build --quiet --release --target "$target")
    told=$("$built/$target/release/outside-local")
    [ "$told" = $'/agent\na thought' ] || fail "an agent of a program outside of the workspace said otherwise: $told"
    told=$("$built/$target/release/outside-raworc" version --output json | jq -r .version)
    [ "$told" = "$version" ] || fail "raworc from its package is not $version: $told"
    echo 'a program with SQLite and local computers has made an agent, sent it a message and seen it done'
}

# Lists the crates that are linked into a binary. The tool takes in what cargo could have chosen too, and paths of this machine.
list_crates() {
    local binary=$1 package features sources=$work/sources list=$directory/$1-$version-$target.cdx.json linked
    case $binary in
        raworc) package=raworc-cli features='--features full' ;;
        *) package=raworc-agent features= ;;
    esac
    # It writes beside each manifest.
    if ! [ -d "$sources" ]; then
        mkdir "$sources"
        git ls-files -z | xargs -0 cp --parents --target-directory="$sources"
    fi
    cargo cyclonedx --quiet --manifest-path "$sources/$package/Cargo.toml" $features --target "$target" --no-build-deps \
        --spec-version 1.5 --format json --override-filename list
    linked=$(cargo tree --locked --package $package $features --target "$target" --edges normal --prefix none --format '{p}' |
        awk '{ print $1 "@" substr($2, 2) }' | sort -u)
    sed "s,file://$sources,file:///raworc,g" "$sources/$package/list.json" | jq --arg linked "$linked" '
        INDEX($linked / "\n" | .[]; .) as $is_linked |
        .components |= map(select($is_linked["\(.name)@\(.version)"])) |
        INDEX((.metadata.component, .components[])["bom-ref"]; .) as $is_there |
        .dependencies |= map(select($is_there[.ref]) | if .dependsOn then .dependsOn |= map(select($is_there[.])) else . end)
    ' >"$list"
    jq --exit-status --argjson count "$(wc -l <<<"$linked")" '
        .bomFormat == "CycloneDX" and (.components | length) + 1 == $count
            and any(.components[]; .purl | startswith("pkg:cargo/tokio@"))
    ' "$list" >/dev/null || fail "$list is not what cargo says is in $binary"
    echo "$binary: $(jq '.components | length' "$list") crates"
}

# make_image IMAGE NAME: as an archive, which is loaded once more, and the list of its Debian packages.
make_image() {
    local image=$1:$version archive=$directory/$2-$version-linux-$machine.tar.gz list=$directory/$2-$version-linux-$machine.cdx.json
    case $1 in
        raworc/raworc)
            mkdir -p "$work/context"
            cp "$work/unpacked/raworc" "$work/unpacked/raworc-agentd" "$work/context"
            docker build --quiet --tag "$image" --file deploy/raworc/Dockerfile "$work/context" >/dev/null
            ;;
        *) raworc image build --tag "$image" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "$image cannot be made"; } ;;
    esac
    docker save "$image" | gzip --no-name >"$archive"
    docker image rm --force "$image" >/dev/null
    docker load --quiet --input "$archive" >/dev/null
    docker run --rm --network none --entrypoint dpkg-query "$image" \
        --show --showformat '${Package}\t${Version}\t${Architecture}\n' |
        jq --raw-input --null-input --arg image "$image" --argjson date "$SOURCE_DATE_EPOCH" '{
            bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
            metadata: { timestamp: ($date | todate), component: { type: "container", name: $image } },
            components: [inputs / "\t" | {
                type: "library", name: .[0], version: .[1],
                purl: "pkg:deb/debian/\(.[0] | @uri)@\(.[1] | @uri)?arch=\(.[2])"
            }]
        }' >"$list"
    jq --exit-status 'any(.components[]; .name == "ca-certificates")' "$list" >/dev/null ||
        fail "$list does not name ca-certificates"
    echo "$image: loaded from its archive, $(jq '.components | length' "$list") packages of Debian"
}

try_raworc_image() {
    local told
    told=$(docker run --rm --network none "raworc/raworc:$version" version --output json | jq -r .version)
    [ "$told" = "$version" ] || fail "raworc in its image is not $version: $told"
}

try_computer_image() {
    RAWORC_DOCKER__IMAGE=raworc/computer:$version tour docker
    take_away_computers
}

# What the tour has left on the engine.
take_away_computers() {
    local label
    [ -e "$work/docker/installation" ] || return 0
    label=label=raworc.installation=$(cat "$work/docker/installation")
    docker ps --all --quiet --filter "$label" | xargs --no-run-if-empty docker rm --force >/dev/null
    docker volume ls --quiet --filter "$label" | xargs --no-run-if-empty docker volume rm --force >/dev/null
    docker network ls --quiet --filter "$label" | xargs --no-run-if-empty docker network rm >/dev/null
}
