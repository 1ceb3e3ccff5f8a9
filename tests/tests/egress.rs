//! The guard, black-box: the real worker in a network of its own, with somebody listening at every
//! address it must not dial, and a name server that moves, mixes, delays and lies.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use klaxon_tests::authority::Authority;
use klaxon_tests::cluster::SUPERUSER;
use klaxon_tests::database::{Database, WORKER_ROLE};
use klaxon_tests::limit::within;
use klaxon_tests::name_server::{NameServer, Says};
use klaxon_tests::network::Network;
use klaxon_tests::receiver::{Answer, Hook, Receiver};
use klaxon_tests::smtp::{self, MailServer};
use klaxon_tests::until::until;
use klaxon_tests::worker::{Installation, Worker};
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

/// Where receivers are, and may be.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
/// Where the resolver configuration points to.
const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 53));
/// Where nothing may go.
const FORBIDDEN: [&str; 15] = [
    "127.0.0.1",
    "10.0.0.5",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "::1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:5",
    "2002:7f00:1::1",
    "fd00:ec2::254",
    "fd20:ce::254",
];
const PROXY: [(&str, &str); 4] = [
    ("HTTPS_PROXY", "http://10.0.0.5:3128"),
    ("https_proxy", "http://10.0.0.5:3128"),
    ("ALL_PROXY", "socks5://10.0.0.5:3128"),
    ("HTTP_PROXY", "http://10.0.0.5:3128"),
];
/// What a name that is not to be looked up would be looked up as, too.
const RESOLVER: &str = "nameserver 93.184.216.53\nsearch inside.test\noptions ndots:5\n";

const REFUSED: Option<&str> = Some("egress refused: target refused by policy");
const UNRESOLVED: Option<&str> = Some("could not resolve host");
const SENT: Option<&str> = None;

fn forbidden() -> Vec<IpAddr> {
    FORBIDDEN.iter().map(|address| address.parse().unwrap()).collect()
}

/// As a URL has it.
fn literal(address: IpAddr) -> String {
    SocketAddr::new(address, 0).to_string().trim_end_matches(":0").to_owned()
}

struct Scene {
    database: Database<'static>,
    client: Client,
    names: NameServer,
    receiver: Receiver,
    worker: Worker,
    _mail: MailServer,
    _authority: Authority,
    _installation: Installation,
}

impl Scene {
    async fn set(names: &[&str]) -> Self {
        let database = Database::new();
        let client = database.connect().await;
        // Over its Unix socket, so that whatever is sent to this machine itself is seen to be.
        let url = |user: &str| {
            let (folder, port) = (database.cluster.socket_folder().display(), database.cluster.port());
            format!("host={folder} port={port} user={user} dbname={}", database.name)
        };
        let installation = Installation::init(&url(SUPERUSER)).await;
        let authority = Authority::new().unwrap();
        let receiver = Receiver::start_at((PUBLIC, 443).into(), &authority, names).await.unwrap();
        let mail = MailServer::start_at((PUBLIC, 587).into(), &authority).await.unwrap();
        let names = NameServer::start(NAME_SERVER).await.unwrap();
        let flags = ["--database-url", &url(WORKER_ROLE), "--dns-ttl", "2s", "--ca-file"].map(str::to_owned);
        let flags = [&flags[..], &[authority.file().display().to_string()]].concat();
        let mut worker = installation.start(&flags);
        worker.ready().await;
        Self {
            database,
            client,
            names,
            receiver,
            worker,
            _mail: mail,
            _authority: authority,
            _installation: installation,
        }
    }

    async fn channel(&self, name: &str, kind: &str, config: &Value, event: &str) {
        self.client
            .execute(
                "INSERT INTO klaxon.channel (name, kind, config) VALUES ($1, $2, $3)",
                &[&name, &kind, config],
            )
            .await
            .unwrap();
        self.client
            .execute(
                "SELECT klaxon.subscribe(ARRAY[$1::text], ARRAY[$2::text], owner => NULL)",
                &[&name, &event],
            )
            .await
            .unwrap();
    }

    /// A webhook to a name that is tried once.
    async fn webhook(&self, name: &str, event: &str) {
        let config = json!({ "url": format!("https://{name}/{name}"), "retry_schedule": [] });
        self.receiver.serve(&format!("/{name}"), Hook::default());
        self.channel(name, "webhook", &config, event).await;
    }

    /// The errors of an event's deliveries by channel, once there are so many attempts.
    async fn errors(&self, event: &str, attempts: usize) -> BTreeMap<String, Option<String>> {
        let event: Uuid =
            self.client.query_one("SELECT klaxon.notify_event($1)", &[&event]).await.unwrap().get(0);
        self.attempted(event, attempts).await
    }

    async fn attempted(&self, event: Uuid, attempts: usize) -> BTreeMap<String, Option<String>> {
        let condition =
            format!("SELECT count(*) = {attempts} FROM klaxon.delivery WHERE event_id = '{event}'");
        until(&self.client, &format!("({condition})")).await;
        let query =
            "SELECT channel_name, error, status FROM klaxon.delivery WHERE event_id = $1 ORDER BY attempt";
        let rows = self.client.query(query, &[&event]).await.unwrap();
        rows.iter()
            .map(|row| {
                let (error, status): (Option<String>, &str) = (row.get(1), row.get(2));
                assert_eq!(error.is_none(), status == "sent", "{error:?} {status}");
                (row.get(0), error)
            })
            .collect()
    }

    /// What became of one event with one channel.
    async fn outcome(&self, event: &str) -> Option<String> {
        self.errors(event, 1).await.into_values().next().unwrap()
    }
}

/// Every way to say an address that may not be dialled, and what becomes of it.
async fn attempts(scene: &Scene) -> BTreeMap<String, Option<&'static str>> {
    let mut expected = BTreeMap::new();
    let mut add = async |name: String, kind: &str, config: Value, error| {
        let mut config = config;
        config["retry_schedule"] = json!([]);
        scene.channel(&name, kind, &config, "run.failed").await;
        expected.insert(name, error);
    };
    let hook = |host: &str| json!({ "url": format!("https://{host}/x") });
    let mail = |host: &str| json!({ "smtp_host": host, "smtp_port": 587, "from_addr": "a@b.test", "to_addrs": ["c@d.test"] });
    for (index, address) in forbidden().into_iter().enumerate() {
        let (written, named, mixed) = (literal(address), format!("n{index}.test"), format!("m{index}.test"));
        scene.names.say(&named, Says::Addresses(vec![address], 60));
        scene.names.say(&mixed, Says::Addresses(vec![PUBLIC, address], 60));
        for host in [&written, &named, &mixed] {
            add(format!("hook {host}"), "webhook", hook(host), REFUSED).await;
            add(format!("mail {host}"), "email", mail(host), REFUSED).await;
        }
    }
    let private = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    let late = Duration::from_secs(7);
    for (name, says, error) in [
        ("mapped.test", Says::Addresses(vec![PUBLIC, mapped], 60), REFUSED),
        ("alias.test", Says::Alias("localhost", vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]), REFUSED),
        ("alias6.test", Says::Alias("localhost", vec![IpAddr::V6(Ipv6Addr::LOCALHOST)]), REFUSED),
        ("bare-alias.test", Says::Alias("localhost", vec![]), REFUSED),
        ("named-alias.test", Says::Alias("public.test", vec![private]), REFUSED),
        ("intranet.inside.test", Says::Addresses(vec![private], 60), REFUSED),
        ("late.test", Says::Late(late, vec![private]), UNRESOLVED),
        ("late-public.test", Says::Late(late, vec![PUBLIC]), UNRESOLVED),
        ("other-id.test", Says::OtherId(vec![PUBLIC]), UNRESOLVED),
        ("nobody.test", Says::NoSuchName, UNRESOLVED),
        ("public.test", Says::Addresses(vec![PUBLIC], 60), SENT),
    ] {
        scene.names.say(name, says);
        add(format!("hook {name}"), "webhook", hook(name), error).await;
    }
    scene.names.say(smtp::HOST, Says::Addresses(vec![PUBLIC], 60));
    for (host, error) in [
        // What the resolver's own search list makes of it is judged as any name.
        ("intranet", REFUSED),
        ("localhost", REFUSED),
        ("2130706433", REFUSED),
        ("0x7f.1", REFUSED),
        (&PUBLIC.to_string(), SENT),
    ] {
        add(format!("hook {host}"), "webhook", hook(host), error).await;
    }
    let mut to_public = mail(smtp::HOST);
    to_public["smtp_user"] = smtp::USER.into();
    to_public["smtp_pass"] = smtp::PASSWORD.into();
    add("mail".into(), "email", to_public, SENT).await;
    scene.receiver.serve("/x", Hook::default());
    let away = ["https://10.0.0.5/", "https://127.0.0.1/", "//169.254.169.254/"]
        .map(|to| Answer::status(302).header("location", to));
    scene.receiver.serve("/away", Hook::default().answers(away));
    for index in 0..3 {
        let away = json!({ "url": "https://public.test/away" });
        add(format!("away {index}"), "webhook", away, Some("HTTP 302")).await;
    }
    expected
}

#[tokio::test]
async fn no_packet_reaches_a_forbidden_address() {
    let addresses: Vec<IpAddr> = [PUBLIC, NAME_SERVER].into_iter().chain(forbidden()).collect();
    let test = "no_packet_reaches_a_forbidden_address";
    let Some(mut network) = Network::enter(test, &PROXY, &addresses, RESOLVER).await else { return };
    let names = ["public.test", "moves.test", "lasts.test", "appears.test", &PUBLIC.to_string()];
    let scene = Scene::set(&names).await;
    network.listen(&forbidden(), &[25, 80, 443, 465, 587, 3128]).await.unwrap();
    network.packets(PUBLIC).await;

    let expected = attempts(&scene).await;
    let found = scene.errors("run.failed", expected.len()).await;
    for (channel, error) in &found {
        assert_eq!(error.as_deref(), expected[channel], "{channel}");
    }
    moves(&scene).await;
    lasts(&scene).await;
    appears(&scene).await;

    // Nothing but what may be dialled was, in no way.
    let packets = network.packets(PUBLIC).await;
    let strays: Vec<_> = packets.iter().filter(|to| ![PUBLIC, NAME_SERVER].contains(&to.ip())).collect();
    assert!(strays.is_empty(), "{strays:?}");
    assert!(packets.contains(&(PUBLIC, 443).into()) && packets.contains(&(NAME_SERVER, 53).into()));
    assert_eq!(network.accepted(), []);
    // A name with a dot in it is asked for as it is.
    let searched: Vec<_> =
        scene.names.asked().into_iter().filter(|name| name.ends_with(".inside.test")).collect();
    assert!(searched.iter().all(|name| name == "intranet.inside.test"), "{searched:?}");
    says_no_address(&scene).await;
    control(&mut network).await;
}

/// A name that moves is delivered to while it is public; the connection that was kept is not used
/// after it has moved.
async fn moves(scene: &Scene) {
    scene.webhook("moves.test", "task.failed").await;
    let private = Says::Addresses(vec!["10.0.0.5".parse().unwrap()], 0);
    let public = Says::Addresses(vec![PUBLIC], 0);
    for says in [&public, &private, &public, &private] {
        scene.names.say("moves.test", says.clone());
        let error = scene.outcome("task.failed").await;
        let refused = matches!(says, Says::Addresses(to, _) if to[0] != PUBLIC);
        assert_eq!(error.as_deref(), if refused { REFUSED } else { SENT }, "{says:?}");
    }
    assert_eq!(scene.receiver.requests_at("/moves.test").len(), 2);
}

/// A name that is to be believed for a day is asked for again after `dns-ttl`.
async fn lasts(scene: &Scene) {
    scene.webhook("lasts.test", "task.slow").await;
    scene.names.say("lasts.test", Says::Addresses(vec![PUBLIC], 86_400));
    assert_eq!(scene.outcome("task.slow").await.as_deref(), SENT);
    scene.names.say("lasts.test", Says::Addresses(vec!["::1".parse().unwrap()], 86_400));
    let mut sent = 1;
    within("a refusal", async {
        while scene.outcome("task.slow").await.is_none() {
            sent += 1;
        }
    })
    .await;
    assert_eq!(scene.outcome("task.slow").await.as_deref(), REFUSED);
    assert_eq!(scene.receiver.requests_at("/lasts.test").len(), sent);
}

/// A second attempt asks and judges anew.
async fn appears(scene: &Scene) {
    let config = json!({ "url": "https://appears.test/appears.test", "retry_schedule": [1] });
    scene.receiver.serve("/appears.test", Hook::default());
    scene.channel("appears.test", "webhook", &config, "cluster.new").await;
    let event: Uuid =
        scene.client.query_one("SELECT klaxon.notify_event('cluster.new')", &[]).await.unwrap().get(0);
    assert_eq!(scene.attempted(event, 1).await["appears.test"].as_deref(), UNRESOLVED);
    scene.names.say("appears.test", Says::Addresses(vec![PUBLIC], 60));
    assert_eq!(scene.attempted(event, 2).await["appears.test"].as_deref(), SENT);
}

/// Neither a row nor the log says where a name led to. The channels here are called by it.
async fn says_no_address(scene: &Scene) {
    let recorded = scene.database.psql("SELECT concat_ws(' ', error, response_body) FROM klaxon.delivery");
    let logged: String = scene.worker.log().iter().map(|line| line.field("error").to_string()).collect();
    assert!(logged.contains("target refused by policy"), "{logged}");
    for address in FORBIDDEN {
        assert!(!recorded.contains(address) && !logged.contains(address), "{address}:\n{recorded}\n{logged}");
    }
}

/// The oracle sees what is sent to a forbidden address, had anything been.
async fn control(network: &mut Network) {
    for address in forbidden() {
        let to = SocketAddr::new(address, 443);
        tokio::net::TcpStream::connect(to).await.unwrap();
        assert!(network.packets(PUBLIC).await.contains(&to), "{to}");
    }
    // A connection is there before the listener has said so.
    within("each listener to accept", async {
        while network.accepted().len() < FORBIDDEN.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
