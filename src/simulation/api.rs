//! What an engine answers to each request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::engine::{Container, Engine, Event, Image, Wanted, stamp};
use super::scenario::Check;
use super::wire::{Reply, Request};
use super::world::{Refusal, World};

pub(super) async fn answer(world: &Arc<World>, engine: &str, request: Request) -> Reply {
    let words: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let what = format!("{} {}", request.method, request.path);
    let reads = request.method == "GET" || request.method == "HEAD";
    match (request.method.as_str(), words.as_slice()) {
        ("GET", ["events"]) => {
            let begun = world.call(engine, &what, false, |_, _| Ok(())).await;
            return match begun {
                Ok(()) => Reply::Stream(events(world, engine, &request)),
                Err(refusal) => refuse(refusal),
            };
        }
        ("GET", ["containers", id, "logs"]) => return logs(world, engine, id, &request).await,
        ("POST", ["images", "create"]) => return pull(world, engine, &request).await,
        _ => {}
    }
    let done = world.call(engine, &what, !reads, |engine, _| act(engine, world, &request, &words));
    match done.await {
        Ok((status, body)) => Reply::Json(status, body),
        Err(refusal) => refuse(refusal),
    }
}

fn refuse(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Answer(status, message) => Reply::message(status, message),
        Refusal::Broken => Reply::Broken,
    }
}

fn act(
    engine: &mut Engine,
    world: &Arc<World>,
    request: &Request,
    words: &[&str],
) -> Result<(u16, Value), Refusal> {
    let not_found = |what: &str| Refusal::Answer(404, format!("No such {what}"));
    let now = world.now();
    match (request.method.as_str(), words) {
        ("GET" | "HEAD", ["_ping"]) => Ok((200, json!("OK"))),
        ("GET", ["info"]) => Ok((
            200,
            json!({"ID": engine.name, "Name": "host", "OSType": "linux", "Architecture": "x86_64", "ServerVersion": "20.10.24",
                "DockerRootDir": "/var/lib/docker", "Driver": "overlay2", "DriverStatus": []}),
        )),
        ("GET", ["containers", "json"]) => {
            let labels = labels_of(request);
            let found = engine.containers.iter().filter(|one| carries(&one.labels, &labels));
            Ok((200, found.map(summary).collect()))
        }
        ("GET", ["containers", id, "json"]) => {
            let found = engine.container(id).ok_or_else(|| not_found("container"))?;
            Ok((200, found.inspected()))
        }
        ("POST", ["containers", "create"]) => {
            let wanted = wanted(request);
            let id = engine.create(wanted, world)?;
            Ok((201, json!({"Id": id, "Warnings": []})))
        }
        ("POST", ["containers", id, "start"]) => {
            engine.start(id, world)?;
            Ok((204, Value::Null))
        }
        ("POST", ["containers", id, "rename"]) => {
            engine.rename(id, request.parameter("name").unwrap_or_default())?;
            Ok((204, Value::Null))
        }
        ("DELETE", ["containers", id]) => {
            engine.remove(id, request.parameter("force") == Some("true"), now)?;
            Ok((204, Value::Null))
        }
        ("POST", ["networks", _, "connect"]) => Ok((200, Value::Null)),
        ("GET", ["images", "json"]) => Ok((200, engine.images.iter().map(listed).collect())),
        ("GET", ["images", name @ .., "json"]) => {
            let image = engine.image(&name.join("/")).ok_or_else(|| not_found("image"))?;
            Ok((200, inspected(image)))
        }
        ("POST", ["images", name @ .., "tag"]) => {
            let repository = request.parameter("repo").unwrap_or_default();
            let tag = request.parameter("tag").unwrap_or_default();
            engine.tag(&name.join("/"), &format!("{repository}:{tag}"))?;
            Ok((201, Value::Null))
        }
        ("DELETE", ["images", name @ ..]) => {
            engine.untag(&name.join("/"))?;
            Ok((200, json!([])))
        }
        ("GET", ["volumes", ..]) => Err(not_found("volume")),
        _ => Err(Refusal::Answer(404, format!("page not found: {}", request.path))),
    }
}

fn filters(request: &Request) -> Value {
    let text = request.parameter("filters").unwrap_or("{}");
    serde_json::from_str(text).unwrap_or_default()
}

fn labels_of(request: &Request) -> Vec<String> {
    let filters = filters(request);
    let list = filters["label"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|label| label.as_str().map(str::to_owned)).collect()
}

fn carries(labels: &BTreeMap<String, String>, wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    })
}

fn summary(container: &Container) -> Value {
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": container.reference,
        "ImageID": container.image,
        "Labels": container.labels,
        "State": container.status.word(),
        "Created": container.created.timestamp(),
    })
}

fn inspected(image: &Image) -> Value {
    json!({
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": image.digests,
        "Created": "2025-01-01T00:00:00Z",
        "Architecture": "amd64",
        "Os": "linux",
        "Config": {"Labels": {"of": image.repository, "version": image.version.to_string()}},
        "RootFS": {"Type": "layers", "Layers": [image.id]},
    })
}

fn listed(image: &Image) -> Value {
    json!({
        "Id": image.id, "ParentId": "", "RepoTags": image.tags, "RepoDigests": image.digests,
        "Created": 0, "Size": 0, "SharedSize": 0, "Labels": {}, "Containers": -1,
    })
}

fn wanted(request: &Request) -> Wanted {
    let body = &request.body;
    let labels = body["Labels"].as_object().cloned().unwrap_or_default();
    let check = &body["Healthcheck"];
    let time = |key: &str| Duration::from_nanos(check[key].as_u64().unwrap_or_default());
    Wanted {
        name: request.parameter("name").unwrap_or_default().to_owned(),
        reference: body["Image"].as_str().unwrap_or_default().to_owned(),
        labels: labels
            .into_iter()
            .map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        policy: body["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or("no").to_owned(),
        check: check.is_object().then(|| Check {
            interval: time("Interval"),
            retries: u32::try_from(check["Retries"].as_u64().unwrap_or(3)).unwrap(),
            start_period: time("StartPeriod"),
        }),
    }
}

/// A moment of a query: seconds, with a fraction.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    DateTime::from_timestamp(seconds.parse().ok()?, nanoseconds)
}

fn events(world: &Arc<World>, engine: &str, request: &Request) -> mpsc::UnboundedReceiver<Vec<u8>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let since = request.parameter("since").and_then(moment).unwrap_or_else(|| world.now());
    let until = request.parameter("until").and_then(moment);
    let filters = filters(request);
    let actions: Vec<String> = filters["event"]
        .as_array()
        .map(|list| list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    let labels = labels_of(request);
    let (world, engine) = (Arc::clone(world), engine.to_owned());
    tokio::spawn(async move {
        let mut changes = world.changes();
        let mut next = 0;
        loop {
            let news: Vec<Event> = {
                let state = world.state();
                let all = state.engines.get(&engine).map_or(&[][..], |engine| &engine.events);
                let news = all[next..].to_vec();
                next = all.len();
                news
            };
            for event in news {
                let name = event.action.split(':').next().unwrap_or_default();
                let is_wanted = event.at >= since
                    && until.is_none_or(|until| event.at <= until)
                    && actions.iter().any(|action| action == name)
                    && carries(&event.attributes, &labels);
                if is_wanted && sender.send(line(&event)).is_err() {
                    return;
                }
            }
            let ended = until.map(|until| (until - world.now()).to_std().unwrap_or_default());
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = tokio::time::sleep(ended.unwrap_or_default()), if ended.is_some() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    });
    receiver
}

fn line(event: &Event) -> Vec<u8> {
    let nanoseconds = event.at.timestamp_nanos_opt().unwrap_or_default();
    let event = json!({
        "Type": "container",
        "Action": event.action,
        "Actor": {"ID": event.container, "Attributes": event.attributes},
        "scope": "local",
        "time": event.at.timestamp(),
        "timeNano": nanoseconds,
    });
    format!("{event}\n").into_bytes()
}

async fn logs(world: &Arc<World>, engine: &str, id: &str, request: &Request) -> Reply {
    let what = format!("logs of {}", &id[..12.min(id.len())]);
    let found = world.call(engine, &what, false, |engine, _| {
        let missing = || Refusal::Answer(404, "No such container".to_owned());
        engine.container(id).map(|one| one.log.clone()).ok_or_else(missing)
    });
    let log = match found.await {
        Ok(log) => log,
        Err(refusal) => return refuse(refusal),
    };
    let mut bytes = Vec::new();
    for (at, text) in &log {
        let line = format!("{} {text}\n", stamp(*at));
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(&u32::try_from(line.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(line.as_bytes());
    }
    if request.parameter("follow") != Some("true") {
        return Reply::Bytes(bytes);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let _ = sender.send(bytes);
    let (world, engine, id) = (Arc::clone(world), engine.to_owned(), id.to_owned());
    tokio::spawn(async move {
        let mut changes = world.changes();
        loop {
            let is_running = {
                let state = world.state();
                let engine = state.engines.get(&engine);
                engine.and_then(|engine| engine.container(&id)).is_some_and(Container::is_running)
            };
            if !is_running {
                return;
            }
            tokio::select! {
                biased;
                () = sender.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    });
    Reply::Stream(receiver)
}

async fn pull(world: &Arc<World>, engine: &str, request: &Request) -> Reply {
    let repository = request.parameter("fromImage").unwrap_or_default().to_owned();
    let name = request.parameter("tag").unwrap_or_default().to_owned();
    let what = format!("pull {repository} {name}");
    let short = repository.trim_start_matches("r.example/").to_owned();
    if let Err(refusal) = world.call(engine, &what, false, |_, _| Ok(())).await {
        return refuse(refusal);
    }
    let path = format!("/v2/{short}/manifests/{name}");
    let said = match super::registry::answer(world, "GET", &path).await {
        Err(why) => Err(format!("Get \"https://r.example/v2/\": dial tcp: {why}")),
        Ok((200, ..)) => Ok(()),
        Ok((404, ..)) => {
            Err(format!("manifest for {repository}:{name} not found: manifest unknown"))
        }
        Ok((429, ..)) => Err("toomanyrequests: Rate exceeded".to_owned()),
        Ok((status, ..)) => Err(format!("received unexpected HTTP status: {status}")),
    };
    if let Err(message) = said {
        return Reply::message(500, message);
    }
    let release = {
        let state = world.state();
        let found = state.registry.find(&repository, &name);
        found.map(|(version, release)| release.image(&repository, version))
    };
    let Some(image) = release else { return Reply::message(404, "manifest unknown") };
    let arrived = format!("{what}: done");
    let done = world.call(engine, &arrived, true, |engine, _| {
        match engine.images.iter_mut().find(|one| one.id == image.id) {
            Some(known) => known.digests.extend(image.digests),
            None => engine.images.push(image),
        }
        Ok(())
    });
    match done.await {
        Ok(()) => Reply::Bytes(
            format!("{}\n", json!({"status": "Status: Downloaded newer image"})).into_bytes(),
        ),
        Err(refusal) => refuse(refusal),
    }
}
