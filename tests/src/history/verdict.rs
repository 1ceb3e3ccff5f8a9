//! Whether what arrived is what was committed.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::Client;
use uuid::Uuid;

use super::arrivals::Arrival;
use super::faults::{Aftermath, Incident};
use super::ledger::Entries;
use super::plan::CHANNELS;

/// What a worker has in flight (256), answered and waiting to be settled (500) or being written (500)
/// when something happens to it is what may be sent again, and no more.
const AT_RISK: usize = 256 + 2 * 500;
/// What had been sent when something happened may arrive a little later.
const LATE: f64 = 1.0;
/// A session may have ended a little before its worker logs that.
const NOTICED: f64 = 2.0;

/// One row of the audit log.
#[derive(Debug)]
pub struct Record {
    delivery: Uuid,
    attempt: i32,
    status: String,
    code: Option<i32>,
}

/// Everything there is to judge by.
#[derive(Debug)]
pub struct Evidence {
    /// What the clients know.
    pub entries: Entries,
    /// What the receiver got.
    pub arrivals: Vec<Arrival>,
    /// What befell.
    pub aftermath: Aftermath,
    /// The audit log.
    pub records: Vec<Record>,
}

/// Figures of a history that was judged.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is wrong.
    pub wrongs: Vec<String>,
    /// Deliveries that were to be made.
    pub expected: usize,
    /// Of these, those that never arrived.
    pub lost: usize,
    /// Requests of what was rolled back, or not for that channel, or a delivery too many.
    pub phantom: usize,
    /// Requests beyond the first of an attempt that nothing had happened before.
    pub unexplained: usize,
    /// Requests.
    pub arrivals: usize,
    /// Requests beyond the first of an attempt, by what they came after.
    pub repeated: BTreeMap<&'static str, usize>,
    /// Of those, attempts that were counted first and never settled.
    pub unlogged: usize,
    /// Sessions that workers say they lost.
    pub lost_sessions: usize,
}

/// Reads the attempts of the audit log at the channels of a history.
///
/// # Panics
/// When the session breaks.
pub async fn records(client: &Client) -> Vec<Record> {
    let channels = CHANNELS.map(|(name, ..)| name);
    let sql = "SELECT delivery_id, attempt, status, response_code FROM klaxon.delivery
               WHERE kind = 'attempt' AND channel_name = ANY ($1)";
    let rows = client.query(sql, &[&channels.as_slice()]).await.expect("the log reads");
    let record = |row: &tokio_postgres::Row| Record {
        delivery: row.get(0),
        attempt: row.get(1),
        status: row.get(2),
        code: row.get(3),
    };
    rows.iter().map(record).collect()
}

/// The sessions that workers say they lost.
///
/// # Panics
/// When the session breaks.
pub async fn losses(client: &Client, aftermath: &Aftermath) -> Vec<Incident> {
    let lost = aftermath.log.iter().filter(|line| line.message() == "cannot reach postgres");
    let times: Vec<&str> = lost.filter_map(|line| line.0["timestamp"].as_str()).collect();
    let sql = "SELECT extract(epoch FROM at::timestamptz)::double precision FROM unnest($1::text[]) AS at";
    let rows = client.query(sql, &[&times]).await.expect("the workers' clocks read");
    let loss = |at: f64| Incident { fault: "a lost session", from: at - NOTICED, until: at, forgot: false };
    rows.iter().map(|row| loss(row.get(0))).collect()
}

impl Evidence {
    /// Judges. `losses` are incidents, too.
    #[must_use]
    pub fn judge(&self, losses: Vec<Incident>) -> Verdict {
        let mut verdict =
            Verdict { arrivals: self.arrivals.len(), lost_sessions: losses.len(), ..Verdict::default() };
        let incidents = self.aftermath.incidents.iter().copied().chain(losses).collect::<Vec<_>>();
        self.nothing_missing_nothing_else(&mut verdict);
        let again = self.repetitions_have_a_reason(&incidents, &mut verdict);
        self.log_and_arrivals_agree(&again, &mut verdict);
        verdict
    }

    /// Every committed event arrived at every channel that is to hear of it, under one id; nothing else did.
    fn nothing_missing_nothing_else(&self, verdict: &mut Verdict) {
        let mut arrived: HashMap<(Uuid, &str), HashSet<Uuid>> = HashMap::new();
        for arrival in self.arrivals.iter().filter(|arrival| arrival.status == 200) {
            arrived.entry((arrival.event, arrival.channel.as_str())).or_default().insert(arrival.delivery);
        }
        let mut expected = HashSet::new();
        for (event, kind) in &self.entries.committed {
            for channel in kind.channels() {
                expected.insert((*event, channel));
                match arrived.get(&(*event, channel)).map_or(0, HashSet::len) {
                    0 => {
                        verdict.lost += 1;
                        verdict.wrong(format!("{event} ({kind:?}) never arrived at {channel}"));
                    }
                    1 => {}
                    several => {
                        verdict.phantom += several - 1;
                        verdict.wrong(format!("{event} arrived at {channel} as several deliveries"));
                    }
                }
            }
        }
        verdict.expected = expected.len();
        for arrival in &self.arrivals {
            let Arrival { event, channel, .. } = arrival;
            if self.entries.gone.contains(event) {
                continue;
            }
            if self.entries.rolled_back.contains(event) {
                verdict.phantom += 1;
                verdict.wrong(format!("{event} was rolled back, and arrived at {channel}"));
            } else if !expected.contains(&(*event, channel.as_str())) {
                verdict.phantom += 1;
                verdict.wrong(format!("{event} is not for {channel}, and arrived there"));
            }
        }
    }

    /// An attempt that arrived is one row of the log, which says what it was answered; a delivery is sent once.
    /// One that something befell before it was made `again` may have been counted and not be in the log, where its worker ended meanwhile.
    fn log_and_arrivals_agree(&self, again: &HashSet<(Uuid, i32)>, verdict: &mut Verdict) {
        let answers: HashMap<(Uuid, i32), u16> = self
            .arrivals
            .iter()
            .filter(|arrival| !self.entries.gone.contains(&arrival.event))
            .map(|arrival| ((arrival.delivery, arrival.attempt), arrival.status))
            .collect();
        let (mut logged, mut sent) = (HashSet::new(), HashSet::new());
        for Record { delivery, attempt, status, code } in &self.records {
            if !logged.insert((*delivery, *attempt)) {
                verdict.wrong(format!("attempt {attempt} of {delivery} is two rows of the log"));
            }
            if status == "sent" && !sent.insert(*delivery) {
                verdict.wrong(format!("{delivery} was logged as sent twice"));
            }
            let answered = answers.get(&(*delivery, *attempt)).copied().map(i32::from);
            if code.is_some() && answered != *code {
                verdict.wrong(format!(
                    "attempt {attempt} of {delivery}: logged {code:?}, answered {answered:?}"
                ));
            }
        }
        for (delivery, attempt) in answers.keys().filter(|attempt| !logged.contains(*attempt)) {
            if again.contains(&(*delivery, *attempt)) {
                verdict.unlogged += 1;
            } else {
                verdict.wrong(format!("attempt {attempt} of {delivery} arrived and is not in the log"));
            }
        }
        if sent.len() != verdict.expected {
            verdict.wrong(format!("{} deliveries were logged as sent, of {}", sent.len(), verdict.expected));
        }
    }

    /// What arrived again though it had been answered, or as the same attempt, did so around something that
    /// befell a worker, and no more than that had at risk. Returns the attempts that such a thing came after.
    fn repetitions_have_a_reason(
        &self,
        incidents: &[Incident],
        verdict: &mut Verdict,
    ) -> HashSet<(Uuid, i32)> {
        let mut arrivals: HashMap<Uuid, Vec<&Arrival>> = HashMap::new();
        for arrival in &self.arrivals {
            arrivals.entry(arrival.delivery).or_default().push(arrival);
        }
        let (mut blamed, mut again) = (vec![0; incidents.len()], HashSet::new());
        for (delivery, mut arrivals) in arrivals {
            arrivals.sort_by(|one, other| one.at.total_cmp(&other.at));
            for pair in arrivals.windows(2) {
                let (first, second) = (pair[0], pair[1]);
                let between =
                    |incident: &Incident| incident.from <= second.at && incident.until >= first.at - LATE;
                let incident = incidents.iter().position(between);
                if incident.is_some() {
                    again.insert((delivery, first.attempt));
                }
                if first.status != 200 && first.attempt != second.attempt {
                    continue;
                }
                match incident {
                    Some(at) => {
                        blamed[at] += 1;
                        *verdict.repeated.entry(incidents[at].fault).or_default() += 1;
                    }
                    None => {
                        verdict.unexplained += 1;
                        verdict.wrong(format!(
                            "attempt {} of {delivery} arrived at {:.3} and again at {:.3}, and nothing happened between",
                            first.attempt, first.at, second.at
                        ));
                    }
                }
            }
        }
        for (incident, count) in incidents.iter().zip(blamed) {
            let within = |arrival: &&Arrival| (incident.from..=incident.until).contains(&arrival.at);
            let forgotten = if incident.forgot { self.arrivals.iter().filter(within).count() } else { 0 };
            if count > AT_RISK + forgotten {
                verdict.wrong(format!("{count} deliveries came again after {incident:?}"));
            }
        }
        again
    }
}

impl Verdict {
    fn wrong(&mut self, what: String) {
        self.wrongs.push(what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Kind;
    use super::*;

    const KIND: Kind = Kind { name: "run.failed", project: "stray" };
    const EVENT: Uuid = Uuid::from_u128(1);

    /// One event, for two channels, all in order.
    fn in_order() -> Evidence {
        let arrival = |channel: &str, delivery: u128| Arrival {
            channel: channel.into(),
            delivery: Uuid::from_u128(delivery),
            event: EVENT,
            attempt: 1,
            at: 100.0,
            status: 200,
        };
        let record = |delivery: u128| Record {
            delivery: Uuid::from_u128(delivery),
            attempt: 1,
            status: "sent".into(),
            code: Some(200),
        };
        Evidence {
            entries: Entries { committed: [(EVENT, KIND)].into(), ..Entries::default() },
            arrivals: vec![arrival("runs", 10), arrival("failures", 11)],
            aftermath: Aftermath { incidents: vec![], counts: BTreeMap::new(), log: vec![] },
            records: vec![record(10), record(11)],
        }
    }

    fn wrongs(change: impl FnOnce(&mut Evidence)) -> Vec<String> {
        let mut evidence = in_order();
        change(&mut evidence);
        evidence.judge(vec![]).wrongs
    }

    #[test]
    fn what_is_in_order_is_found_so() {
        assert_eq!(wrongs(|_| ()), [""; 0]);
    }

    #[test]
    fn what_is_not_is_said() {
        type Change = fn(&mut Evidence);
        let cases: [(&str, Change); 8] = [
            ("never arrived at runs", |evidence| drop(evidence.arrivals.remove(0))),
            ("was rolled back, and arrived at runs", |evidence| {
                evidence.entries.committed.clear();
                evidence.entries.rolled_back.insert(EVENT);
            }),
            ("is not for flaky, and arrived there", |evidence| {
                evidence.arrivals[0].channel = "flaky".into();
            }),
            ("arrived at runs as several deliveries", |evidence| {
                let other = Arrival { delivery: Uuid::from_u128(12), ..evidence.arrivals[0].clone() };
                evidence.arrivals.push(other);
            }),
            ("is two rows of the log", |evidence| evidence.records[0].delivery = Uuid::from_u128(11)),
            ("was logged as sent twice", |evidence| {
                evidence.records[0].delivery = Uuid::from_u128(11);
                evidence.records[0].attempt = 2;
            }),
            ("logged Some(500), answered Some(200)", |evidence| evidence.records[0].code = Some(500)),
            ("arrived and is not in the log", |evidence| drop(evidence.records.remove(0))),
        ];
        for (expected, change) in cases {
            let found = wrongs(change);
            assert!(found.iter().any(|wrong| wrong.contains(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn what_arrives_twice_needs_an_incident_between() {
        let again = |from: f64| {
            wrongs(move |evidence| {
                let again = Arrival { at: 110.0, ..evidence.arrivals[0].clone() };
                evidence.arrivals.push(again);
                evidence.aftermath.incidents.push(Incident {
                    fault: "a kill",
                    from,
                    until: from + 0.1,
                    forgot: false,
                });
            })
        };
        assert_eq!(again(105.0), [""; 0]);
        assert_eq!(again(99.5), [""; 0], "what had been sent arrived late");
        for unrelated in [98.0, 111.0] {
            assert!(again(unrelated)[0].contains("nothing happened between"), "{unrelated}");
        }
    }

    #[test]
    fn no_more_arrives_twice_than_was_at_risk_or_forgotten() {
        let again = |forgot: bool| {
            wrongs(move |evidence| {
                for number in 0..=AT_RISK {
                    let at = 110.0 + number as f64 * 1e-4;
                    let again = Arrival { at, ..evidence.arrivals[0].clone() };
                    evidence.arrivals.push(again);
                }
                evidence.aftermath.incidents.push(Incident {
                    fault: "a failover",
                    from: 109.0,
                    until: 111.0,
                    forgot,
                });
            })
        };
        assert!(again(false)[0].contains("1257 deliveries came again"), "{:?}", again(false));
        assert_eq!(again(true), [""; 0]);
    }

    #[test]
    fn an_attempt_that_was_counted_first_needs_an_incident_and_a_next_one() {
        let unlogged = |from: f64, again: bool| {
            wrongs(move |evidence| {
                if again {
                    let next = Arrival { attempt: 2, at: 110.0, ..evidence.arrivals[0].clone() };
                    evidence.arrivals.push(next);
                    evidence.records[0].attempt = 2;
                } else {
                    evidence.records.remove(0);
                }
                evidence.aftermath.incidents.push(Incident {
                    fault: "a kill",
                    from,
                    until: from + 0.1,
                    forgot: false,
                });
            })
        };
        let missing = |wrongs: &[String]| wrongs.iter().any(|wrong| wrong.contains("is not in the log"));
        assert_eq!(unlogged(105.0, true), [""; 0]);
        assert!(missing(&unlogged(98.0, true)));
        assert!(missing(&unlogged(105.0, false)));
    }
}
