#!/usr/bin/env bash
# Takes out the defences that matter most, one after the other, and expects a test to notice each time:
#
#   tests/mutants.sh            all of them, about a minute each
#   tests/mutants.sh NAME…      those whose name contains one of the words
#
# An entry is a name, a file, what a Perl substitution makes of it, and the test that must then fail. It works on a
# copy below the target directory. Exits 1 if a defence can be taken out and no test notices, or is not found.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

wanted=("$@")
copy=$setup_target/mutants
run=dkvt$$
unnoticed=0

# The files as they are here, each with its own time, so that only what differs is built again.
mutants_copy() {
    mkdir -p "$copy"
    git ls-files -z --cached --others --exclude-standard -- . ':!.ci' | while IFS= read -r -d '' file; do
        [ -e "$file" ] || continue
        cmp -s "$file" "$copy/$file" || install -D -m "$(stat -c %a "$file")" "$file" "$copy/$file"
    done
}

# mutant NAME FILE SUBSTITUTION ARGUMENT-OF-CARGO-TEST…
mutant() {
    local name=$1 file=$2 substitution=$3 word chosen=no
    shift 3
    [ ${#wanted[@]} -gt 0 ] || chosen=yes
    for word in "${wanted[@]}"; do
        [[ $name != *"$word"* ]] || chosen=yes
    done
    [ $chosen = yes ] || return 0
    perl -0pi -e "$substitution" "$copy/$file"
    if cmp -s "$file" "$copy/$file"; then
        echo "NOT FOUND  $name: $file has no such text"
        unnoticed=$((unnoticed + 1))
        return 0
    fi
    if ! (cd "$copy" && mutants_cargo --no-run "$@") >"$log" 2>&1; then
        echo "NO MUTANT  $name: it does not build, see $log"
        unnoticed=$((unnoticed + 1))
    elif (cd "$copy" && mutants_cargo "$@") >"$log" 2>&1; then
        echo "UNNOTICED  $name: ${*: -1} passes"
        unnoticed=$((unnoticed + 1))
    elif [ $? -eq 124 ]; then
        echo "noticed    $name: ${*: -1} waits for ever"
    elif grep -q '^test .* FAILED$' "$log"; then
        echo "noticed    $name: $(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | head -1)"
    else
        echo "NO TEST    $name: no test failed, see $log"
        unnoticed=$((unnoticed + 1))
    fi
    cp -p "$file" "$copy/$file"
    touch "$copy/$file"
}

mutants_cargo() { timeout 400 cargo test --locked --features fuzzing "$@"; }

setup_all build compose registry tests moto
setup_environment
log=$setup_target/mutants.log
# Of its own: cargo would take the programs of the copy for those of the checkout.
CARGO_TARGET_DIR=$(realpath "$setup_target")/mutants/target
export CARGO_TARGET_DIR
export DKV_TEST_RUN=$run RUST_TEST_THREADS=4
mutants_copy

# shellcheck disable=SC2016 # Perl expands them
{
# What is on the disk.
mutant file-not-synced src/store/replace.rs \
    's/(give_to_owner_of\(&file, &wanted\.owner_like\)\?,\n    \}\n    )file\.sync_all\(\)/$1Ok(())/' \
    --test blackbox power::
mutant sync-failure-ignored src/store/replace.rs \
    's/    \}\n    file\.sync_all\(\)\n\}/    }\n    let _ = file.sync_all();\n    Ok(())\n}/' --test blackbox crash::a_failing_disk
mutant mode-not-kept src/store/replace.rs 's/Some\(old\) => keep_owner_and_mode\(&file, &old\)\?,/Some(_) => {}/' \
    --test blackbox manifest::mode_and_owner
mutant any-depth-parsed src/model/yaml/depth.rs 's/if depth > MAX_DEPTH \{/if depth > usize::MAX - MAX_DEPTH {/' --lib model::yaml
mutant renamed-by-hand-forgotten src/model/manifest/write.rs 's/"tag" \| "digest" \| "deployed_by"/"digest" | "deployed_by"/' \
    --lib model::manifest::tests::a_release_renamed
mutant directory-not-synced src/store/replace.rs \
    's/sync_directory\(directory\)\.map_err/Ok::<(), io::Error>(()).map_err/' --test blackbox power::
mutant written-in-place src/store/replace.rs \
    's/let path = super::neighbour\(&wanted\.path\);\n    match std::fs::remove_file/let path = wanted.path.clone();\n    match std::fs::remove_file/' \
    --test blackbox crash::
mutant no-lock src/store/lock.rs 's/match file\.try_lock\(\) \{/match Ok::<(), TryLockError>(()) {/' \
    --test blackbox locks::twenty_writers
mutant edits-overwritten src/store/replace.rs 's/match before\.is_untouched\(\)\.map_err\(.*?\)\? \{/match true {/s' --test blackbox crash::an_edit
mutant fifo-waited-for src/store/read.rs 's/OFlags::NONBLOCK\.bits\(\)/OFlags::empty().bits()/' \
    --lib store::read
mutant any-size-read src/store/read.rs 's/metadata\.len\(\) > MAX_FILE_BYTES/false/; s/bytes\.len\(\) as u64 > MAX_FILE_BYTES/false/' \
    --lib store::read
mutant failed-look-is-nothing src/store/look.rs 's/Err\(source\) if source\.kind\(\) == io::ErrorKind::NotFound => Ok\(None\)/Err(_) => Ok(None)/' \
    --lib store::look
mutant moved-and-not-kept src/change/evidence.rs 's/places\.last\(\) != Some\(&now\)/false/' --test blackbox keeping::a_deployment
mutant in-use-for-ever src/change/keep.rs 's/if app\.store\.tags_in_use\(\)\.is_empty\(\)/if true/' --test blackbox keeping::releases
mutant restart-left-half src/app.rs 's/self\.interruption\(\)\.tolerate_first\(\);//' --test blackbox stopping::
mutant passwords-shown src/ui/sanitize.rs "s/if !text\.contains\('@'\)/if true/" --lib sanitize

# What is believed.
mutant digest-not-compared src/registry/client.rs 's/(let digest = Digest::of\(&answer\.body\);\n)\s*query\.check_digest\(&answer, name, &digest\)\?;/$1/' \
    --lib registry::tests::a_registry_that_lies
mutant login-to-anybody src/registry/transport.rs 's/\.filter\(\|_\| url\.origin\(\) == request\.url\.origin\(\)\)//' \
    --lib registry::tests::redirects
mutant stale-login-final src/registry/host.rs 's/self\.is_anonymous\.store\(true, Ordering::Relaxed\);//' \
    --test blackbox credentials::a_stale_login
mutant password-shown src/compose/run.rs 's/(fn redact\(&self, text: String\) -> String \{)/$1 if true { return text; }/' \
    --lib compose::run
mutant variables-of-the-loader src/model/env_file.rs 's/\|\| is_taken\(&name\)//' --lib env_file
mutant links-followed-by-restore src/backup/restore.rs 's/links\.insert\(path\.to_path_buf\(\)\);//' --lib backup::
mutant any-entry-restored src/backup/restore.rs 's/let is_plain = components\.all\(.*?\);/let is_plain = components.count() < usize::MAX;/s' --lib backup::

# What runs.
mutant old-container-blamed src/update/blame.rs 's/if !self\.is_new\(container, self\.tracked\.get\(&one\.service\)\) \{/if false {/' \
    --lib update::blame
mutant kill-blamed src/update/blame.rs 's/if self\.signalled\.contains\(&container\.id\) \{/if false {/' --lib update::blame
mutant host-blamed src/update/blame.rs 's/\.or_else\(\|\| hindered\(container, &one\.log\)\)//' --lib update::blame
mutant compose-pulls src/compose/argv.rs 's/Pull::Never => &\["--pull", "never"\]/Pull::Never => &[]/' --lib argv
mutant keep-tag-of-neighbour-removed src/change/keep.rs \
    's/\n\s+&& !self\.tags\.contains\(tag\)//; s/digits\.is_some_and\(\|digits\| !self\.unlisted.*?\)\)\)/digits.is_some()/s' \
    --test blackbox oneness::evicting_from_one_history
mutant nothing-kept src/plan.rs 's/let digest = release\.bytes\.name\(\)\?;/let digest = release.bytes.name().filter(|_| false)?;/' \
    --test blackbox rollback::keep_tags
mutant keep-tags-of-an-update-left src/commands/update_safe.rs \
    's/filter\(\|\(_, tag\)\| remembered\.has_forgotten\(tag\)\)/filter(|_| false)/' \
    --test blackbox update_safe::a_good_release_replaces_only_what_changed_v2
mutant engine-waited-for-ever src/docker/stream.rs 's/let patience = self\.deadlines\.idle;/let patience = self.deadlines.idle * 10_000;/g' \
    --lib docker::tests
mutant follower-left-behind src/followers.rs 's/if hangs \{/if false \&\& hangs {/' --test blackbox launching::what_hangs
mutant restart-of-dependents-ignored src/followers.rs 's/how\.restart && renewed/false \&\& how.restart \&\& renewed/' \
    --test blackbox launching::what_hangs
mutant scale-forgotten src/runtime.rs 's/if count > 0 &&/if false \&\& count > 0 \&\&/' --test blackbox launching::what_the_operator
mutant stopped-started src/runtime.rs 's/    has_ended\(container\)\n        && !is_job/    false \&\& has_ended(container)\n        \&\& !is_job/' \
    --test blackbox launching::what_the_operator
mutant profiles-asleep src/deployment.rs 's/let is_awake = \|service: &ServiceConfig\| .*?;/let is_awake = |_: \&ServiceConfig| false;/' \
    --test blackbox launching::what_runs_by_a_profile
mutant job-not-awaited src/health.rs 's/expectation\.must_complete \|= complete\(name\);/let _ = complete(name);/' \
    --test blackbox blame::a_job_that_had
mutant impatient src/docker/container.rs 's/(pub fn patience\(&self\) -> Duration \{)/$1 return Duration::ZERO;/' \
    --test blackbox blame::a_release_has_the_time
mutant host-platform src/deployment.rs 's/(pub fn platform\(&self, compose_service: &str\) -> Option<Platform> \{)/$1 if true { return None; }/' \
    --test blackbox tracks::one_image_on_two
mutant one-program-for-another src/members.rs 's/Fit::Other => Err\(Differs::Tag\)/Fit::Other => Ok(Fit::Track)/' \
    --test blackbox tracks::
# What an update survives, as the simulator sees it.
mutant signal-does-not-turn-back src/commands/update_safe.rs \
    's/(State::Saving \| State::Replacing \| State::Judging) => \{\n(\s+self\.app\.interruption\(\)\.tolerate_first)/$1 if false => {\n$2/; s/State::Recording \| State::Restoring \| State::RestoreFailed => None/_ => None/' \
    --lib simulation::
mutant engine-not-waited-for src/commands/update_safe/restore.rs \
    's/const ENGINE_PATIENCE: Duration = Duration::from_secs\(300\);/const ENGINE_PATIENCE: Duration = Duration::ZERO;/' \
    --lib simulation::
mutant one-refusal-ends-it src/health/wait.rs \
    's/const ENGINE_PATIENCE: Duration = Duration::from_secs\(\d+\);/const ENGINE_PATIENCE: Duration = Duration::ZERO;/' \
    --lib simulation::
mutant taken-up-anywhere src/commands/update_safe.rs \
    's/prepare::check_setting\(&Deployment::open\(app\)\?, &journal, option\)\.await\?;/let _ = option;/' \
    --lib simulation::
mutant half-restored-started src/commands/unfinished.rs 's/matches!\(self, Self::Replacing \| Self::GoingBack\)/false/; s/self\.check_restore\(effect\)\?;//' \
    --test blackbox data::half
mutant restore-without-journal src/commands/restore_data.rs 's/self\.enter\(Phase::Replacing\)\?;//' --test blackbox data::killed
}

if [ "$unnoticed" -gt 0 ]; then
    setup_say "$unnoticed of the defences can be taken out, and no test notices"
    exit 1
fi
