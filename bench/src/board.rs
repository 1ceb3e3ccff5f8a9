//! One figure of every contender, round by round.

use crate::contender::Who;
use crate::peer::Peer;
use crate::report::{Goal, Report, median};

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// The figures.
#[derive(Debug, Default)]
pub struct Board(Vec<(Who, Vec<f64>)>);

impl Board {
    /// Adds a round's.
    pub fn push(&mut self, who: Who, value: f64) {
        match self.0.iter_mut().find(|(whose, _)| *whose == who) {
            Some((_, values)) => values.push(value),
            None => self.0.push((who, vec![value])),
        }
    }

    /// Those of one.
    pub fn of(&self, who: Who) -> &[f64] {
        self.0.iter().find(|(whose, _)| *whose == who).map_or(&[], |(_, values)| values)
    }

    /// A row each.
    pub fn rows(&self, report: &mut Report, what: &str) {
        for (name, values) in self.named() {
            report.row(&format!("{what}, {name}"), &values);
        }
    }

    /// Names and figures, in the order in which the contenders are listed everywhere.
    pub fn named(&self) -> Vec<(String, Vec<f64>)> {
        Who::ALL.into_iter().map(|who| (who.name().to_owned(), self.of(who).to_vec())).collect()
    }

    /// The product against one peer.
    pub fn against(&self, report: &mut Report, what: &str, peer: Peer, goal: Goal) {
        let what = format!("{what}, against {}", peer.name());
        report.goal(&what, self.of(Who::Klaxon), self.of(Who::Peer(peer)), goal);
    }

    /// The product against the peer that does best.
    pub fn against_best(&self, report: &mut Report, what: &str, better: Better, goal: Goal) {
        let peers = Peer::ALL.into_iter().map(|peer| (peer, median(self.of(Who::Peer(peer)))));
        let best = peers.reduce(|best, next| {
            let wins = match better {
                Better::More => next.1 > best.1,
                Better::Less => next.1 < best.1,
            };
            if wins { next } else { best }
        });
        let Some((best, _)) = best else { return };
        let what = format!("{what}, against the best peer, {}", best.name());
        report.goal(&what, self.of(Who::Klaxon), self.of(Who::Peer(best)), goal);
    }
}
