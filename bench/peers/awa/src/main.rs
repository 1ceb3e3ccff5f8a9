//! awa with a handler that posts: the five verbs that every peer of the benchmarks has.

use std::time::Duration;

use awa::model::migrations;
use awa::{
    Client, InsertOpts, InsertParams, JobContext, JobError, JobResult, QueueConfig, QueueStorage, Worker,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

const VERSION: &str = "0.6.9";
const QUEUE: &str = "post";
/// Rows of one COPY.
const BATCH: usize = 1000;
/// At least four a queue and twenty, its notes on benchmarks say.
const CONNECTIONS: u32 = 40;
/// The call that its adapters for other drivers make in a user's own transaction.
const STATEMENT: &str = "SELECT id FROM awa.insert_job_compat('post', 'post', $1::text::jsonb, 'available', 2::smallint, 25::smallint, NULL, '{}', '{}', NULL, NULL, NULL)";

/// As many workers as serve it best here: what it claims at once is what they have room for.
const WORKERS: u32 = 256;

/// Its own benchmarks' settings; more claimers were slower, as each waits for the others' rows.
fn tuning(in_flight: u32) -> QueueConfig {
    QueueConfig {
        max_workers: in_flight.max(WORKERS),
        poll_interval: Duration::from_millis(50),
        ..QueueConfig::default()
    }
}

/// An event as every contender's rows carry it.
fn event(id: Uuid, run: usize) -> Value {
    json!({"id": id, "run_id": run})
}

struct Post {
    client: reqwest::Client,
    url: String,
}

#[async_trait::async_trait]
impl Worker for Post {
    fn kind(&self) -> &'static str {
        "post"
    }

    async fn perform(&self, job: &JobContext) -> Result<JobResult, JobError> {
        let event = &job.job.args;
        let request = self
            .client
            .post(&self.url)
            .header("webhook-id", event["id"].as_str().unwrap_or_default())
            .header("content-type", "application/json")
            .body(event.to_string());
        let answer = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(JobError::retryable)?;
        answer.bytes().await.map_err(JobError::retryable)?;
        Ok(JobResult::Completed)
    }
}

async fn connect(url: &str) -> anyhow::Result<PgPool> {
    Ok(PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?)
}

async fn fill(url: &str, count: usize) -> anyhow::Result<()> {
    let (pool, storage) = (connect(url).await?, QueueStorage::new(Default::default())?);
    for from in (0..count).step_by(BATCH) {
        let jobs: Vec<InsertParams> = (from..(from + BATCH).min(count))
            .map(|run| InsertParams {
                kind: "post".into(),
                args: event(Uuid::new_v4(), run),
                opts: InsertOpts { queue: QUEUE.into(), ..InsertOpts::default() },
            })
            .collect();
        storage.enqueue_params_copy(&pool, &jobs).await?;
    }
    Ok(())
}

async fn work(url: &str, receiver: &str, in_flight: u32) -> anyhow::Result<()> {
    let post =
        Post { client: reqwest::Client::builder().tcp_nodelay(true).build()?, url: receiver.to_owned() };
    let client =
        Client::builder(connect(url).await?).queue(QUEUE, tuning(in_flight)).register_worker(post).build()?;
    client.start().await?;
    println!("ready");
    // Its end is a signal.
    std::future::pending().await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["about", in_flight] => {
            let config = tuning(in_flight.parse()?);
            let tuning = json!({
                "max_workers": config.max_workers,
                "claimers": config.claimers,
                "claim_batch_size": config.claim_batch_size,
                "poll_interval": "50 ms",
                "max_connections": CONNECTIONS,
            });
            println!("{}", json!({"version": VERSION, "tuning": tuning}));
        }
        ["install", url] => migrations::run(&connect(url).await?).await?,
        ["statement", _] => {
            println!(
                "{}",
                json!({"text": STATEMENT, "argument": event(Uuid::nil(), 1).to_string(), "listens": "awa:post"})
            );
        }
        ["fill", url, count] => fill(url, count.parse()?).await?,
        ["work", url, receiver, in_flight] => work(url, receiver, in_flight.parse()?).await?,
        _ => anyhow::bail!("about | install | statement | fill | work"),
    }
    Ok(())
}
