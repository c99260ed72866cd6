//! The rules, on made-up containers and made-up time.

use crate::report::Standing;
use chrono::TimeZone as _;
use proptest::prelude::*;

use super::*;
use crate::compose::config;
use crate::docker::{Health, HealthCheck};

fn at(milliseconds: i64) -> DateTime<Utc> {
    Utc.timestamp_millis_opt(1_700_000_000_000 + milliseconds).unwrap()
}

fn container(state: ContainerState) -> ContainerDetail {
    ContainerDetail {
        id: "1".to_owned(),
        name: "shop_web_1".to_owned(),
        image: "web".to_owned(),
        created_at: Some(at(0)),
        started_at: (state != ContainerState::Created).then(|| at(0)),
        health_check: HealthCheck { interval: Duration::from_secs(1), ..HealthCheck::default() },
        ..ContainerDetail::of_test(state)
    }
}

fn exited(code: i64, restart_policy: RestartPolicy) -> ContainerDetail {
    ContainerDetail { exit_code: code, restart_policy, ..container(ContainerState::Exited) }
}

fn checked(status: HealthStatus) -> ContainerDetail {
    let failed = status == HealthStatus::Unhealthy;
    let last = Some(HealthProbe {
        exit_code: i64::from(failed),
        output: "no route".to_owned(),
        ended_at: None,
    });
    let health = Some(Health { status, failing_streak: if failed { 3 } else { 0 }, last });
    ContainerDetail { has_health_check: true, health, ..container(ContainerState::Running) }
}

fn restarting(restart_count: i64) -> ContainerDetail {
    ContainerDetail {
        restart_count,
        exit_code: 1,
        restart_policy: RestartPolicy::Always,
        ..container(ContainerState::Restarting)
    }
}

fn observed(service: &str, container: ContainerDetail) -> Observed {
    let id = format!("{service}-{}", container.id);
    Observed {
        service: service.to_owned(),
        number: 1,
        container: ContainerDetail { id, name: format!("shop_{service}_1"), ..container },
    }
}

/// The services of a Compose file.
fn expectations(services: &str) -> Expectations {
    Expectations::of(
        &config::parse_v1(&format!("services: {services}"), "shop".to_owned()).unwrap(),
    )
}

fn one_shot() -> Expectation {
    Expectation { must_complete: true, counts: true, ..Expectation::default() }
}

fn without_memory(container: &ContainerDetail, expectation: &Expectation, now: i64) -> Verdict {
    judge(container, expectation, None, Duration::from_secs(5), at(now))
}

/// The first line of the explanation of each container, in order.
fn headlines(deployment: &Judgement) -> Vec<String> {
    deployment.containers.iter().map(|judged| explain(judged)[0].clone()).collect()
}

fn verdict_of<'a>(deployment: &'a Judgement, service: &str) -> &'a Verdict {
    &deployment.containers.iter().find(|judged| judged.service == service).unwrap().verdict
}

#[test]
fn exits_are_judged_by_code_policy_and_what_others_wait_for() {
    let plain = Expectation::default();
    let awaited = Expectation { must_be_healthy: true, ..Expectation::default() };
    let server = Expectation { must_stay: true, ..Expectation::default() };
    let failed = |code| Verdict::Failed(Cause::Exited { code });
    let cases = [
        (exited(0, RestartPolicy::No), &plain, Verdict::Completed),
        (exited(0, RestartPolicy::OnFailure), &plain, Verdict::Completed),
        (exited(0, RestartPolicy::Always), &plain, failed(0)),
        (exited(0, RestartPolicy::UnlessStopped), &plain, failed(0)),
        (exited(0, RestartPolicy::No), &awaited, failed(0)),
        (exited(0, RestartPolicy::Always), &one_shot(), Verdict::Completed),
        (exited(0, RestartPolicy::No), &server, failed(0)),
        (
            exited(0, RestartPolicy::No),
            &Expectation { must_stay: true, ..one_shot() },
            Verdict::Completed,
        ),
        (exited(3, RestartPolicy::No), &plain, failed(3)),
        (exited(3, RestartPolicy::OnFailure), &plain, failed(3)),
        (exited(3, RestartPolicy::No), &one_shot(), failed(3)),
        (
            ContainerDetail { oom_killed: true, ..exited(137, RestartPolicy::No) },
            &plain,
            Verdict::Failed(Cause::OutOfMemory { restarts: 0 }),
        ),
        (
            ContainerDetail { has_health_check: true, ..exited(0, RestartPolicy::No) },
            &plain,
            failed(0),
        ),
        (
            ContainerDetail { has_health_check: true, ..exited(0, RestartPolicy::No) },
            &one_shot(),
            Verdict::Completed,
        ),
        (
            ContainerDetail {
                error: Some("no such file".to_owned()),
                ..exited(127, RestartPolicy::No)
            },
            &plain,
            Verdict::Failed(Cause::CannotStart { error: "no such file".to_owned() }),
        ),
    ];
    for (container, expectation, expected) in cases {
        assert_eq!(
            without_memory(&container, expectation, 60_000),
            expected,
            "{container:?} {expectation:?}"
        );
    }
}

#[test]
fn running_containers_are_judged_by_their_check_or_by_time() {
    let plain = Expectation::default();
    assert_eq!(without_memory(&checked(HealthStatus::Healthy), &plain, 1), Verdict::Healthy);
    assert!(matches!(
        without_memory(&checked(HealthStatus::Starting), &plain, 9_999),
        Verdict::Pending(Waiting::Starting(_))
    ));
    assert!(matches!(
        without_memory(&checked(HealthStatus::Unhealthy), &plain, 9_999),
        Verdict::Pending(Waiting::Unhealthy(_))
    ));
    // Between the start and the first answer of the daemon about health.
    let unknown = ContainerDetail { health: None, ..checked(HealthStatus::Healthy) };
    assert_eq!(without_memory(&unknown, &plain, 9_999), Verdict::Pending(Waiting::Starting(None)));

    let unchecked = container(ContainerState::Running);
    assert_eq!(
        without_memory(&unchecked, &plain, 4_999),
        Verdict::Pending(Waiting::Stabilising { until: at(5_000) })
    );
    assert_eq!(without_memory(&unchecked, &plain, 5_000), Verdict::Unchecked);
    // A one-shot is not good while it runs, whatever the health check of its image says.
    assert_eq!(
        without_memory(&checked(HealthStatus::Healthy), &one_shot(), 9_999),
        Verdict::Pending(Waiting::Completing)
    );
}

#[test]
fn a_healthy_deployment_is_good_at_the_first_look() {
    let expectations = expectations("{web: {}, db: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(9_000));
    let seen = vec![
        observed("web", container(ContainerState::Running)),
        observed("db", checked(HealthStatus::Healthy)),
    ];
    let deployment = watch.look(seen, at(9_000));
    assert!(deployment.is_good(), "{deployment:?}");
    assert_eq!(
        headlines(&deployment),
        [
            "db (shop_db_1): healthy",
            "web (shop_web_1): running (unchecked: it has no health check)"
        ]
    );
}

#[test]
fn a_late_check_passes_and_one_that_never_passes_fails_at_the_deadline() {
    let expectations = expectations("{web: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let starting = || vec![observed("web", checked(HealthStatus::Starting))];
    assert!(!watch.look(starting(), at(119_999)).is_good());
    assert_eq!(watch.wake(), Some(at(120_000)));
    assert!(
        watch.look(vec![observed("web", checked(HealthStatus::Healthy))], at(119_999)).is_good()
    );
    let late = watch.look(starting(), at(120_000));
    assert_eq!(late.failures().count(), 1);

    // Unhealthy is not the end: it may recover, and must then stay good for the stability window.
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let unhealthy = || vec![observed("web", checked(HealthStatus::Unhealthy))];
    let healthy = || vec![observed("web", checked(HealthStatus::Healthy))];
    assert_eq!(watch.look(unhealthy(), at(1_000)).failures().count(), 0);
    assert!(!watch.look(healthy(), at(2_000)).is_good());
    assert_eq!(watch.wake(), Some(at(7_000)));
    assert!(watch.look(healthy(), at(7_000)).is_good());
    let never = Watch::new(&expectations, Limits::default(), at(0)).look(unhealthy(), at(120_000));
    assert_eq!(
        headlines(&never),
        ["web (shop_web_1): unhealthy: its health check exits with 1: no route"]
    );
}

/// Starting, healthy or unhealthy by a check of 2 s, 3 s and 2 retries, with a start period.
fn slow(status: HealthStatus, start_period: u64, started: i64) -> ContainerDetail {
    let health_check = HealthCheck {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(3),
        start_period: Duration::from_secs(start_period),
        retries: 2,
    };
    ContainerDetail { health_check, started_at: Some(at(started)), ..checked(status) }
}

#[test]
fn a_deadline_is_never_before_the_health_check_has_had_its_time() {
    let limits = Limits { timeout: Duration::from_secs(5), ..Limits::default() };
    for (expectations, waited) in [
        (expectations("{web: {}}"), 5),
        (expectations("{web: {}}").with_timeout("web", Duration::from_secs(7)), 7),
    ] {
        // Counted from its start: 200 s, twice 5 s, and a moment to hear of it.
        let mut watch = Watch::new(&expectations, limits, at(0));
        let starting = |period| vec![observed("web", slow(HealthStatus::Starting, period, 1_000))];
        assert_eq!(watch.look(starting(200), at(212_999)).failures().count(), 0);
        assert_eq!(watch.wake(), Some(at(213_000)));
        assert!(
            watch
                .look(vec![observed("web", slow(HealthStatus::Healthy, 200, 1_000))], at(212_999))
                .is_good()
        );
        assert_eq!(watch.look(starting(200), at(213_000)).failures().count(), 1);

        // A restart begins no new time.
        let mut watch = Watch::new(&expectations, limits, at(0));
        watch.look(starting(10), at(2_000));
        let again = vec![observed("web", slow(HealthStatus::Starting, 10, 20_000))];
        assert_eq!(watch.look(again, at(23_000)).failures().count(), 1);

        // What has no health check has the time that was asked for.
        let mut watch = Watch::new(&expectations, limits, at(0));
        let paused = || vec![observed("web", container(ContainerState::Paused))];
        assert_eq!(watch.look(paused(), at(waited * 1_000 - 1)).failures().count(), 0);
        assert_eq!(watch.look(paused(), at(waited * 1_000)).failures().count(), 1);
    }
}

#[test]
fn what_stays_unhealthy_is_not_waited_for_to_the_deadline() {
    let alone = expectations("{web: {}}");
    let web = |period| observed("web", slow(HealthStatus::Unhealthy, period, 0));
    let mut watch = Watch::new(&alone, Limits::default(), at(0));
    assert_eq!(watch.look(vec![web(0)], at(10_000)).failures().count(), 0);
    assert_eq!(watch.wake(), Some(at(17_000)), "one more check, and the stability window");
    assert_eq!(watch.look(vec![web(0)], at(16_999)).failures().count(), 0);
    let failed = watch.look(vec![web(0)], at(17_000));
    assert_eq!(failed.failures().count(), 1);
    assert!(explain(failed.failures().next().unwrap())[1].contains("past its start period"));

    // Healthy within its start period, then not: that period is given first.
    let mut watch = Watch::new(&alone, Limits::default(), at(0));
    watch.look(vec![web(60)], at(10_000));
    assert_eq!(watch.look(vec![web(60)], at(59_999)).failures().count(), 0);
    assert_eq!(watch.look(vec![web(60)], at(60_000)).failures().count(), 1);

    // It may need something that is still coming up.
    let both = expectations("{web: {}, other: {}}");
    let mut watch = Watch::new(&both, Limits::default(), at(0));
    let other = || observed("other", slow(HealthStatus::Starting, 90, 0));
    for time in [10_000, 30_000, 50_000] {
        assert_eq!(watch.look(vec![web(0), other()], at(time)).failures().count(), 0, "{time}");
    }
}

#[test]
fn the_files_adjust_the_check_of_the_image() {
    let files = |check: &str| {
        let text = format!("services: {{web: {{healthcheck: {check}}}}}");
        config::parse_v1(&text, "shop".to_owned()).unwrap().services[0].healthcheck
    };
    let image = slow(HealthStatus::Starting, 200, 0).health_check;
    for (check, image, expected) in [
        ("{start_period: 5s}", Some(image), Some(15)),
        ("{test: [CMD, 'true']}", None, Some(180)),
        ("{interval: 5s}", None, None),
        ("{disable: true}", Some(image), None),
        ("{}", Some(image), Some(210)),
    ] {
        let check = check_in_force(&files(check), image).map(|check| check.patience().as_secs());
        assert_eq!(check, expected);
    }
}

#[test]
fn of_several_on_trial_a_second_bad_one_is_found() {
    let expectations = expectations("{web: {}, api: {}}").on_trial(|_| true);
    let crashed = || observed("web", exited(3, RestartPolicy::No));
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let mut look = |api: ContainerDetail, time| {
        let mut judgement = watch.look(vec![crashed(), observed("api", api)], at(time));
        let is_over = watch.is_over(&mut judgement, at(time));
        (is_over, judgement.failures().count())
    };
    assert_eq!(look(slow(HealthStatus::Starting, 0, 0), 1_000), (false, 1));
    assert_eq!(look(slow(HealthStatus::Starting, 0, 0), 5_999), (false, 1));
    assert_eq!(look(slow(HealthStatus::Unhealthy, 0, 0), 6_000), (true, 2));
    assert_eq!(look(slow(HealthStatus::Starting, 0, 0), 6_000), (true, 1));
}

#[test]
fn compose_waits_for_one_after_the_other() {
    let chain = "{web: {depends_on: {job: {condition: service_completed_successfully}}}, \
        job: {depends_on: {db: {condition: service_healthy}}}, db: {}}";
    assert_eq!(expectations(chain).longest_wait(), 2);
    assert_eq!(expectations("{web: {depends_on: [db]}, db: {}}").longest_wait(), 0);
}

#[test]
fn many_ways_to_the_same_service_cost_no_more_than_one() {
    let healthy = |name: String| format!("{name}: {{condition: service_healthy}}");
    let layers = (0..40).flat_map(|layer| {
        let below: Vec<String> =
            (0..3).map(|number| healthy(format!("s{}-{number}", layer + 1))).collect();
        let below = if layer == 39 { String::new() } else { below.join(", ") };
        (0..3).map(move |number| format!("s{layer}-{number}: {{depends_on: {{{below}}}}}"))
    });
    let expectations = expectations(&format!("{{{}}}", layers.collect::<Vec<_>>().join(", ")));
    assert_eq!(expectations.longest_wait(), 39);
    let judged = Judgement::as_it_stands(Vec::new(), &expectations, Duration::ZERO, at(0));
    assert_eq!(judged.containers.len(), 120);
}

#[test]
fn a_service_has_its_own_deadline() {
    let expectations =
        expectations("{web: {}, slow: {}}").with_timeout("slow", Duration::from_secs(600));
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let starting = |service| observed(service, checked(HealthStatus::Starting));
    let deployment = watch.look(vec![starting("web"), starting("slow")], at(120_000));
    assert_eq!(
        deployment.failures().map(|judged| judged.service.as_str()).collect::<Vec<_>>(),
        ["web"]
    );
    assert_eq!(watch.wake(), Some(at(600_000)));
}

#[test]
fn a_window_that_has_begun_may_end_after_the_deadline() {
    let expectations = expectations("{web: {}}");
    let limits = Limits { timeout: Duration::from_secs(2), ..Limits::default() };
    let mut watch = Watch::new(&expectations, limits, at(0));
    let running = || vec![observed("web", container(ContainerState::Running))];
    assert_eq!(watch.look(running(), at(2_000)).failures().count(), 0);
    assert!(watch.look(running(), at(5_000)).is_good());
}

#[test]
fn what_flaps_must_be_good_for_the_window_and_fails_at_the_deadline() {
    let expectations = expectations("{web: {}, slow: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let mut look = |status, time| {
        let seen = vec![
            observed("web", checked(status)),
            observed("slow", checked(HealthStatus::Starting)),
        ];
        verdict_of(&watch.look(seen, at(time)), "web").clone()
    };
    assert_eq!(look(HealthStatus::Healthy, 1_000), Verdict::Healthy);
    assert!(matches!(
        look(HealthStatus::Unhealthy, 2_000),
        Verdict::Pending(Waiting::Unhealthy(_))
    ));
    assert_eq!(
        look(HealthStatus::Healthy, 3_000),
        Verdict::Pending(Waiting::Flapping { setbacks: 1, until: at(8_000) })
    );
    assert!(matches!(
        look(HealthStatus::Unhealthy, 7_000),
        Verdict::Pending(Waiting::Unhealthy(_))
    ));
    assert_eq!(
        look(HealthStatus::Healthy, 118_000),
        Verdict::Pending(Waiting::Flapping { setbacks: 2, until: at(123_000) })
    );
    assert_eq!(
        look(HealthStatus::Healthy, 120_000),
        Verdict::Failed(Cause::Flapping { setbacks: 2 })
    );
}

#[test]
fn a_restart_between_two_looks_is_noticed() {
    let expectations = expectations("{web: {}, slow: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let slow = || observed("slow", checked(HealthStatus::Starting));
    assert_eq!(
        verdict_of(
            &watch.look(vec![observed("web", checked(HealthStatus::Healthy)), slow()], at(1_000)),
            "web"
        ),
        &Verdict::Healthy
    );
    let again = ContainerDetail {
        started_at: Some(at(1_500)),
        restart_count: 1,
        ..checked(HealthStatus::Healthy)
    };
    let deployment = watch.look(vec![observed("web", again), slow()], at(2_000));
    assert!(matches!(
        verdict_of(&deployment, "web"),
        Verdict::Pending(Waiting::Flapping { setbacks: 1, .. })
    ));
}

#[test]
fn a_restart_loop_is_noticed_long_before_the_deadline() {
    let expectations = expectations("{web: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    for count in 1..RESTARTS_OF_A_LOOP {
        assert_eq!(
            watch
                .look(vec![observed("web", restarting(count))], at(100 * count))
                .failures()
                .count(),
            0
        );
    }
    let deployment = watch.look(vec![observed("web", restarting(RESTARTS_OF_A_LOOP))], at(300));
    assert_eq!(
        headlines(&deployment),
        ["web (shop_web_1): keeps restarting (3 restarts so far): last it exited with code 1"]
    );
}

#[test]
fn restarts_are_forgiven_while_something_else_comes_up() {
    let expectations = expectations("{web: {}, db: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let mut look = |count, db, time| {
        watch.look(vec![observed("web", restarting(count)), observed("db", checked(db))], at(time))
    };
    assert_eq!(look(6, HealthStatus::Starting, 3_000).failures().count(), 0);
    assert_eq!(look(7, HealthStatus::Healthy, 6_000).failures().count(), 0);
    assert_eq!(look(8, HealthStatus::Healthy, 12_000).failures().count(), 0);
    assert_eq!(look(9, HealthStatus::Healthy, 25_000).failures().count(), 1);
}

#[test]
fn restarts_of_long_ago_are_no_loop() {
    let expectations = expectations("{web: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(60_000));
    let stable = ContainerDetail { restart_count: 17, ..container(ContainerState::Running) };
    assert!(watch.look(vec![observed("web", stable)], at(60_000)).is_good());
    assert_eq!(watch.look(vec![observed("web", restarting(18))], at(61_000)).failures().count(), 0);
}

#[test]
fn a_loop_is_seen_without_patience_also_in_the_moment_in_which_it_runs() {
    let expectations = expectations("{web: {}}");
    let look = |restart_count, now| {
        let seen = ContainerDetail { restart_count, ..container(ContainerState::Running) };
        Judgement::as_it_stands(
            vec![observed("web", seen)],
            &expectations,
            Duration::from_secs(5),
            at(now),
        )
    };
    let headline =
        "web (shop_web_1): keeps restarting (3 restarts so far): it has just started again";
    assert_eq!(headlines(&look(RESTARTS_OF_A_LOOP, 4_999)), [headline]);
    assert!(look(RESTARTS_OF_A_LOOP, 5_000).is_good());
    assert_eq!(
        verdict_of(&look(RESTARTS_OF_A_LOOP - 1, 4_999), "web").standing(),
        Standing::Pending
    );
}

#[test]
fn a_release_on_trial_must_pass_every_check_of_its_first_window() {
    let expectations = expectations("{web: {}}").on_trial(|_| true);
    let checked = |status, started: i64, probed: i64, interval: u64| {
        let seen = checked(status);
        let health = seen.health.clone().map(|health| Health {
            last: health.last.map(|last| HealthProbe {
                exit_code: 0,
                ended_at: Some(at(probed)),
                ..last
            }),
            ..health
        });
        let health_check =
            HealthCheck { interval: Duration::from_secs(interval), ..HealthCheck::default() };
        vec![observed(
            "web",
            ContainerDetail { started_at: Some(at(started)), health, health_check, ..seen },
        )]
    };
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    assert!(!watch.look(checked(HealthStatus::Healthy, 0, 1_000, 1), at(1_010)).is_good());
    assert_eq!(watch.wake(), Some(at(5_000)));
    assert!(
        watch.look(checked(HealthStatus::Healthy, 0, 4_030, 1), at(4_040)).is_good(),
        "no check is left in the window"
    );

    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    assert!(!watch.look(checked(HealthStatus::Healthy, 0, 1_000, 1), at(1_010)).is_good());
    assert!(!watch.look(checked(HealthStatus::Unhealthy, 0, 2_000, 1), at(2_010)).is_good());
    assert!(!watch.look(checked(HealthStatus::Healthy, 0, 3_000, 1), at(3_010)).is_good());
    assert!(
        !watch.look(checked(HealthStatus::Healthy, 0, 7_000, 1), at(7_010)).is_good(),
        "it was seen failing"
    );
    assert!(watch.look(checked(HealthStatus::Healthy, 0, 8_000, 1), at(8_010)).is_good());

    let at_once = |seen, now| {
        Watch::new(&expectations, Limits::default(), at(0)).look(seen, at(now)).is_good()
    };
    assert!(at_once(checked(HealthStatus::Healthy, 0, 9_000, 1), 9_010), "its window is over");
    assert!(
        at_once(checked(HealthStatus::Healthy, 0, 1_000, 30), 1_010),
        "waiting for half a minute would prove nothing"
    );
    let known = super::rules_tests::expectations("{web: {}}");
    let seen = checked(HealthStatus::Healthy, 0, 1_000, 1);
    assert!(Watch::new(&known, Limits::default(), at(0)).look(seen, at(1_010)).is_good());
}

#[test]
fn the_chain_of_what_blocks_what_is_named() {
    let expectations = expectations(
        "{web: {depends_on: {api: {condition: service_healthy}}}, api: {depends_on: {db: \
            {condition: service_healthy}}}, db: {}}",
    );
    let seen = || {
        let created = |service| observed(service, container(ContainerState::Created));
        vec![created("web"), created("api"), observed("db", checked(HealthStatus::Unhealthy))]
    };
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    assert_eq!(
        watch.look(seen(), at(100_000)).failures().count(),
        0,
        "the database may still recover"
    );
    let deployment = watch.look(seen(), at(120_000));
    assert_eq!(
        headlines(&deployment),
        [
            "db (shop_db_1): unhealthy: its health check exits with 1: no route",
            "api (shop_api_1): never started: api waits for db (healthy), \
             db is unhealthy: its health check exits with 1: no route",
            "web (shop_web_1): never started: web waits for api (healthy), api waits for db \
            (healthy), db is unhealthy: its health check exits with 1: no route",
        ]
    );

    // Compose v1 does not even make what is blocked; a failed one-shot blocks for good.
    let expectations = super::rules_tests::expectations(
        "{web: {depends_on: {migrate: {condition: service_completed_successfully}}}, migrate: {}}",
    );
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let deployment = watch.look(vec![observed("migrate", exited(2, RestartPolicy::No))], at(10));
    assert_eq!(
        headlines(&deployment),
        [
            "migrate (shop_migrate_1): exited with code 2",
            "web: never started: web waits for migrate (completed), migrate exited with code 2",
        ]
    );
}

#[test]
fn dependencies_in_a_circle_end() {
    let expectations = expectations("{a: {depends_on: [b]}, b: {depends_on: [a]}}");
    let created = |service| observed(service, container(ContainerState::Created));
    let deployment = Judgement::as_it_stands(
        vec![created("a"), created("b")],
        &expectations,
        Duration::ZERO,
        at(0),
    );
    assert_eq!(deployment.failures().count(), 2);
}

#[test]
fn what_nobody_starts_or_makes_fails_after_the_window() {
    let expectations = expectations("{web: {}, gone: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let seen = || vec![observed("web", container(ContainerState::Created))];
    assert_eq!(watch.look(seen(), at(0)).failures().count(), 0);
    assert_eq!(watch.wake(), Some(at(5_000)));
    assert_eq!(
        headlines(&watch.look(seen(), at(5_000))),
        ["gone: has no container", "web (shop_web_1): never started"]
    );
}

#[test]
fn what_does_not_count_is_reported_and_not_held_against_the_others() {
    let expectations = expectations("{web: {}, old: {}}").counting(|service| service != "old");
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let seen = vec![
        observed("web", checked(HealthStatus::Healthy)),
        observed("old", exited(1, RestartPolicy::No)),
        observed("orphan", exited(1, RestartPolicy::No)),
    ];
    let deployment = watch.look(seen, at(0));
    assert!(deployment.is_good());
    assert_eq!(
        deployment.other_failures().map(|judged| judged.service.as_str()).collect::<Vec<_>>(),
        ["old", "orphan"]
    );
}

#[test]
fn of_two_containers_with_one_number_the_newer_counts() {
    let expectations = expectations("{web: {}}");
    let old = ContainerDetail {
        id: "0".to_owned(),
        created_at: Some(at(-1_000)),
        ..exited(137, RestartPolicy::Always)
    };
    let seen = vec![observed("web", old), observed("web", checked(HealthStatus::Healthy))];
    assert!(Watch::new(&expectations, Limits::default(), at(0)).look(seen, at(0)).is_good());
}

#[test]
fn without_patience_a_normal_start_is_pending_and_the_rest_has_failed() {
    let expectations = expectations(
        "{a: {}, b: {}, c: {}, d: {}, e: {}, f: {depends_on: {c: {condition: service_healthy}}}, \
            gone: {}}",
    );
    let seen = vec![
        observed("a", restarting(1)),
        observed("b", checked(HealthStatus::Unhealthy)),
        observed("c", checked(HealthStatus::Starting)),
        observed("d", container(ContainerState::Running)),
        observed("e", container(ContainerState::Paused)),
        observed("f", container(ContainerState::Created)),
    ];
    let deployment =
        Judgement::as_it_stands(seen, &expectations, Duration::from_secs(5), at(1_000));
    let words: Vec<_> = deployment
        .containers
        .iter()
        .map(|judged| (judged.service.as_str(), judged.verdict.standing().word()))
        .collect();
    assert_eq!(
        words,
        [
            ("a", "failed"),
            ("b", "failed"),
            ("e", "failed"),
            ("gone", "failed"),
            ("c", "pending"),
            ("d", "pending"),
            ("f", "pending")
        ]
    );
}

#[test]
fn a_clock_ahead_of_ours_does_not_shorten_or_stretch_the_window_for_ever() {
    let expectations = expectations("{web: {}}");
    let mut watch = Watch::new(&expectations, Limits::default(), at(0));
    let ahead = || {
        vec![observed(
            "web",
            ContainerDetail {
                started_at: Some(at(3_600_000)),
                ..container(ContainerState::Running)
            },
        )]
    };
    assert!(!watch.look(ahead(), at(0)).is_good());
    assert!(!watch.look(ahead(), at(4_999)).is_good());
    assert!(watch.look(ahead(), at(5_000)).is_good());
}

fn any_state() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Created),
        Just(ContainerState::Running),
        Just(ContainerState::Paused),
        Just(ContainerState::Restarting),
        Just(ContainerState::Removing),
        Just(ContainerState::Exited),
        Just(ContainerState::Dead),
        Just(ContainerState::Unknown),
    ]
}

prop_compose! {
    fn any_container()(
        state in any_state(),
        exit_code in prop_oneof![Just(0_i64), Just(1), Just(137)],
        oom_killed: bool,
        error in prop::option::of(Just("broken".to_owned())),
        restart_count in 0_i64..6,
        restart_policy in prop_oneof![
            Just(RestartPolicy::No),
            Just(RestartPolicy::Always),
            Just(RestartPolicy::UnlessStopped),
            Just(RestartPolicy::OnFailure)
        ],
        status in prop::option::of(prop_oneof![
            Just(HealthStatus::Starting),
            Just(HealthStatus::Healthy),
            Just(HealthStatus::Unhealthy)
        ]),
        started in -10_000_i64..10_000,
    ) -> ContainerDetail {
        let base = status.map_or_else(|| container(state), checked);
        ContainerDetail { state, exit_code, oom_killed, error, restart_count, restart_policy, started_at: Some(at(started)), ..base }
    }
}

proptest! {
    #[test]
    fn only_what_runs_is_healthy_and_only_what_ended_well_is_completed(
        container in any_container(),
        must_complete: bool,
        must_be_healthy: bool,
        now in -10_000_i64..100_000,
    ) {
        let expectation = Expectation { must_complete, must_be_healthy, ..Expectation::default() };
        match without_memory(&container, &expectation, now) {
            Verdict::Healthy => {
                prop_assert_eq!(container.state, ContainerState::Running);
                prop_assert_eq!(container.health.unwrap().status, HealthStatus::Healthy);
            }
            Verdict::Unchecked => {
                prop_assert_eq!(container.state, ContainerState::Running);
                prop_assert!(!container.has_health_check);
                prop_assert!(at(now) - container.started_at.unwrap() >= TimeDelta::seconds(5));
            }
            Verdict::Completed => {
                prop_assert_eq!(container.state, ContainerState::Exited);
                prop_assert_eq!(container.exit_code, 0);
            }
            Verdict::Pending(_) | Verdict::Failed(_) => {}
        }
    }

    #[test]
    fn every_wait_is_decided_soon_after_its_last_deadline(
        looks in prop::collection::vec((any_container(), any_container(), 0_i64..40_000), 1..20),
    ) {
        let expectations = expectations("{web: {depends_on: {db: {condition: service_healthy}}}, \
            db: {}}");
        let mut watch = Watch::new(&expectations, Limits::default(), at(0));
        let mut time = 0;
        let mut deployment = Judgement::default();
        for (web, db, pause) in looks {
            time += pause;
            deployment = watch.look(vec![observed("web", web), observed("db", db)], at(time));
            prop_assert!(!(deployment.is_good() && deployment.failures().next().is_some()));
        }
        if time >= 120_000 {
            let stabilising = |judged: &Judged| matches!(judged.verdict, Verdict::Pending(Waiting::Stabilising { .. }));
            prop_assert!(
                deployment.is_good() || deployment.failures().next().is_some() || deployment.containers.iter().any(stabilising)
            );
        }
    }
}
