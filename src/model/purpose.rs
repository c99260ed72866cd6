//! What an image is for, by its name: the application, or what an application stands on.

use super::reference::Repository;

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is the application or a part of it: whatever no list knows.
    Application,
    /// It holds data: a database, a queue, a cache, a search engine, a store.
    Data(&'static str),
    /// It stands before, between or beside applications: a reverse proxy, an exporter, a companion.
    Plumbing(&'static str),
}

/// Words that say what an image is where its name ends with them, whoever publishes it.
const DATA_WORDS: &[(&str, &str)] = &[
    (
        "a database",
        "postgres postgresql postgis pgvector pgvectors pgvecto pgautoupgrade vchord timescale \
         timescaledb mysql mariadb percona mongo mongodb ferretdb documentdb cockroach cockroachdb \
         yugabyte yugabytedb tidb tikv couchdb couchbase rethinkdb arangodb surrealdb neo4j dgraph \
         janusgraph memgraph falkordb cassandra scylla scylladb clickhouse questdb influxdb \
         firebird firebirdsql mssql rqlite edgedb immudb eventstore eventstoredb kurrentdb \
         starrocks orientdb dolt cratedb",
    ),
    ("a cache", "redis valkey keydb dragonflydb memcached kvrocks"),
    (
        "a queue",
        "rabbitmq kafka zookeeper redpanda pulsar nats nsqd activemq mosquitto emqx hivemq \
         vernemq beanstalkd gearmand rocketmq",
    ),
    (
        "a search engine",
        "elasticsearch opensearch meilisearch typesense solr manticore manticoresearch zincsearch",
    ),
    ("a vector store", "qdrant weaviate chromadb milvus"),
    ("an object store", "minio seaweedfs rustfs azurite"),
    ("a store of metrics", "prometheus victoriametrics mimir graphite opentsdb"),
    ("a key-value store", "etcd"),
];

/// Images that hold data and whose names are words of another meaning: the ends of their paths.
const DATA_PATHS: &[(&str, &str)] = &[
    ("a database", "mssql/server database/express database/free ibm/db2 db2_community/db2"),
    ("a cache", "dragonflydb/dragonfly apache/ignite hazelcast/hazelcast"),
    ("a queue", "confluentinc/cp-server"),
    (
        "a search engine",
        "valeriansaliou/sonic vespaengine/vespa wazuh/wazuh-indexer quickwit/quickwit",
    ),
    ("a vector store", "chromadb/chroma chroma-core/chroma"),
    ("an object store", "dxflrs/garage ceph/ceph ceph/daemon"),
    (
        "a store of metrics and logs",
        "victoriametrics/victoria-metrics victoriametrics/victoria-logs grafana/loki grafana/tempo",
    ),
    ("a key-value store", "library/consul hashicorp/consul"),
];

/// As [`DATA_WORDS`], of plumbing.
const PLUMBING_WORDS: &[(&str, &str)] = &[
    ("a reverse proxy", "nginx openresty traefik caddy haproxy envoy varnish httpd lighttpd swag"),
    ("a companion of a reverse proxy", "certbot companion"),
    ("an exporter", "exporter exporters cadvisor pushgateway"),
    ("monitoring", "grafana alertmanager telegraf netdata promtail alloy"),
    ("a tunnel", "cloudflared tailscale gluetun ngrok"),
    ("a keeper of containers", "watchtower autoheal ofelia diun dozzle"),
    ("a proxy of a database", "pgbouncer pgpool pgpool2 pgcat proxysql maxscale twemproxy"),
    ("a backup", "backup backups"),
];

/// As [`DATA_PATHS`], of plumbing.
const PLUMBING_PATHS: &[(&str, &str)] = &[
    (
        "a reverse proxy",
        "nginx-proxy nginx-proxy-manager oauth2-proxy ubuntu/squid ubuntu/apache2 bitnami/apache",
    ),
    (
        "a companion of a reverse proxy",
        "docker-gen acme.sh goacme/lego traefik-certs-dumper traefik-forward-auth",
    ),
    ("monitoring", "grafana-oss grafana-enterprise"),
    ("a keeper of containers", "docker-socket-proxy socket-proxy whats-up-docker swarm-cronjob"),
    (
        "a backup",
        "postgres-backup-local postgres-backup-s3 docker-volume-backup mysql-backup-s3 \
         databack/mysql-backup",
    ),
    (
        "a helper",
        "library/alpine library/busybox library/debian library/ubuntu library/bash \
         library/hello-world curlimages/curl alpine/curl minio/mc amazon/aws-cli \
         jwilder/dockerize wait-for-it docker-wait tianon/true",
    ),
];

/// What names say besides: `redis-stack-server`, `mariadb-galera`, `cp-kafka`.
const QUALIFIERS: &str = "server stack cluster ha oss ce ee community enterprise docker container \
     db database standalone single node primary replica master slave sentinel galera repmgr ssl \
     xtradb native fips slim alpine debian bookworm arm arm64 amd64 x86 multiarch image rs oss \
     core unprivileged hardened latest base pg local atlas gis ext extended extensions custom";

/// What names say of tools for those: `wait-for-postgres`, `init-redis`.
const TOOLS: &str = "init setup migrate migration migrations wait sync backup exporter proxy admin \
     ui web api client connect bridge flink spark";

/// Publishers that package what others make. That an image is theirs says nothing of whose it is.
const PACKAGERS: &str = "library linuxserver bitnami bitnamilegacy bitnamisecure hotio jlesage wodby \
     binhex chainguard rapidfort crazymax nginxproxy prom grafana confluentinc ubuntu tiredofit";

/// What `repository` is for.
#[must_use]
pub fn of(repository: &Repository) -> Purpose {
    let plumbing = by_path(PLUMBING_PATHS, repository).map(Purpose::Plumbing);
    let data = || by_path(DATA_PATHS, repository).map(Purpose::Data);
    let word = || {
        let name = repository.base_name().to_ascii_lowercase();
        let words: Vec<&str> = name.split(['-', '_', '.']).collect();
        let last = *words.iter().rev().find(|word| !has(QUALIFIERS, word))?;
        if let Some(kind) = by_word(PLUMBING_WORDS, last) {
            return Some(Purpose::Plumbing(kind));
        }
        let is_tool = words.iter().any(|word| has(TOOLS, word));
        by_word(DATA_WORDS, last).filter(|_| !is_tool).map(Purpose::Data)
    };
    plumbing.or_else(data).or_else(word).unwrap_or(Purpose::Application)
}

/// Whether data of this kind is written by what watches the application, not by the application: no
/// release of it changes that.
#[must_use]
pub fn watches(kind: &str) -> bool {
    kind.starts_with("a store of metrics")
}

/// Who publishes `repository`: its host and the path but for the name. None where that is somebody
/// who packages what others make.
#[must_use]
pub fn home(repository: &Repository) -> Option<(&str, &str)> {
    let (publisher, _) = repository.path().rsplit_once('/')?;
    (!has(PACKAGERS, publisher)).then(|| (repository.host(), publisher))
}

fn by_path(list: &[(&'static str, &'static str)], repository: &Repository) -> Option<&'static str> {
    let path = repository.path();
    let ends = |end: &str| {
        path.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('/'))
    };
    list.iter().find(|(_, paths)| paths.split_whitespace().any(ends)).map(|(kind, _)| *kind)
}

/// A word may carry a version: `postgres16`.
fn by_word(list: &[(&'static str, &'static str)], word: &str) -> Option<&'static str> {
    let plain = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let known = list.iter().find(|(_, words)| has(words, word) || has(words, plain));
    known.map(|(kind, _)| *kind)
}

fn has(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|one| one == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_plumbing_are_known_by_what_they_are_called_and_tools_for_them_are_not() {
        for (images, expected) in [
            (
                "postgres postgres:16-alpine public.ecr.aws/n5k3t9x2/postgres supabase/postgres \
                 ghcr.io/immich-app/postgres tensorchord/pgvecto-rs tensorchord/vchord-postgres \
                 timescale/timescaledb-ha bitnami/postgresql-repmgr postgis/postgis acme/postgres16 \
                 mysql/mysql-server percona/percona-server bitnami/mariadb-galera \
                 mongodb/mongodb-community-server clickhouse/clickhouse-server \
                 mcr.microsoft.com/mssql/server acme/shop-mysql",
                "a database",
            ),
            (
                "redis redis/redis-stack-server valkey/valkey docker.dragonflydb.io/dragonflydb/dragonfly",
                "a cache",
            ),
            ("rabbitmq confluentinc/cp-kafka eclipse-mosquitto apache/kafka-native", "a queue"),
            (
                "docker.elastic.co/elasticsearch/elasticsearch getmeili/meilisearch",
                "a search engine",
            ),
            ("minio/minio dxflrs/garage", "an object store"),
            ("prom/prometheus", "a store of metrics"),
            (
                "nginx nginxproxy/nginx-proxy jc21/nginx-proxy-manager traefik acme/shop-nginx",
                "a reverse proxy",
            ),
            ("nginxproxy/acme-companion certbot/certbot", "a companion of a reverse proxy"),
            (
                "prom/node-exporter prometheuscommunity/postgres-exporter oliver006/redis_exporter",
                "an exporter",
            ),
            ("prodrigestivill/postgres-backup-local acme/postgres-backup", "a backup"),
            ("edoburu/pgbouncer", "a proxy of a database"),
            ("alpine minio/mc", "a helper"),
            (
                "nextcloud acme/web acme/redis-commander provectuslabs/kafka-ui mongo-express \
                 acme/wait-for-postgres acme/garage acme/sonic postgrest/postgrest kong \
                 supabase/studio supabase/postgres-meta wg-easy/wg-easy gitea/gitea hashicorp/vault \
                 opensearchproject/opensearch-dashboards timberio/vector node",
                "",
            ),
        ] {
            for image in images.split_whitespace() {
                let reference: crate::model::reference::Reference = image.parse().unwrap();
                let found = match of(&reference.repository) {
                    Purpose::Application => "",
                    Purpose::Data(kind) | Purpose::Plumbing(kind) => kind,
                };
                assert_eq!(found, expected, "{image}");
            }
        }
    }

    #[test]
    fn who_packages_what_others_make_is_no_home() {
        for (image, expected) in [
            ("acme/web", Some(("docker.io", "acme"))),
            ("ghcr.io/a/b/web", Some(("ghcr.io", "a/b"))),
            ("nginx", None),
            ("linuxserver/sonarr", None),
            ("lscr.io/linuxserver/swag", None),
        ] {
            assert_eq!(home(&image.parse().unwrap()), expected, "{image}");
        }
    }
}
