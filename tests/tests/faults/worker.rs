//! What befalls workers.

use std::process::Command;
use std::time::Duration;

use klaxon_tests::history::now;
use klaxon_tests::limit::within;
use klaxon_tests::process;
use klaxon_tests::until::until;
use tokio::time::{sleep, timeout};

use crate::ground::{DRAINED, Ground};
use crate::times;

/// One worker, killed in the middle of its deliveries and started again at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed() {
    let (kills, deliveries) = (times(50, 3), times(100_000, 4_500));
    let mut ground = Ground::set(&[]).await;
    ground.emit(4);
    let mut worker = ground.scene.worker(&[]).await;
    let load = deliveries / kills;
    for _ in 0..kills {
        let arrived = ground.receiver.count();
        ground.load(load as i64 / 2).await;
        ground.receiver.wait_for(DRAINED, arrived + load / 4).await;
        let from = now();
        ground.kill(worker).await;
        worker = ground.scene.start(&[]);
        ground.incident("a kill", from);
        ground.recover().await;
    }
    let verdict =
        ground.judge("worker::killed", "worker killed (SIGKILL)", kills.to_string(), vec![worker]).await;
    assert!(verdict.expected >= deliveries, "{} deliveries", verdict.expected);
}

/// One of two is stopped until the other has fenced it, and goes on then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen() {
    let freezes = times(5, 1);
    let mut ground = Ground::set(&[]).await;
    ground.emit(4);
    let mut workers = vec![ground.scene.worker(&[]).await, ground.scene.worker(&[]).await];
    for _ in 0..freezes {
        let worker = workers.last_mut().expect("there are two");
        let served = worker.wait_for_log("that it serves", |line| line.message() == "serving").await;
        let id = served.field("worker").as_str().unwrap_or_default().to_owned();
        let from = now();
        worker.signal("STOP");
        let fenced = format!("NOT EXISTS (SELECT FROM klaxon.worker WHERE id = '{id}')");
        until(&ground.scene.client, &fenced).await;
        // The rest of the stop is the fault no more: another has its shards.
        ground.recover().await;
        workers[1].signal("CONT");
        ground.incident("a fence", from);
        ground.recover().await;
    }
    ground
        .judge(
            "worker::frozen",
            "worker stopped beyond the stale limit (SIGSTOP, SIGCONT)",
            freezes.to_string(),
            workers,
        )
        .await;
}

/// Its address space is at an end while it has ever more to hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory() {
    // After the third in five minutes a worker holds so little at once that no fourth would come of it.
    let (ends, mut by_itself) = (times(3, 1), 0);
    let mut ground = Ground::set(&[]).await;
    ground.emit(4);
    let mut worker = ground.scene.worker(&[]).await;
    for _ in 0..ends {
        ground.recover().await;
        let from = now();
        // Less than it has: the next piece of memory it asks for is refused.
        process::run(Command::new("prlimit").args(["--as=1048576", "--pid", &worker.pid().to_string()]))
            .unwrap();
        // Of more than it can have kept from before, most times: it may make do with that, and is killed then.
        ground.load_of(300, 200_000).await;
        match timeout(Duration::from_secs(20), worker.wait()).await {
            Ok(ended) => {
                assert!(!ended.success(), "{ended}");
                by_itself += 1;
            }
            Err(_) => {
                worker.signal("KILL");
                worker.wait().await;
            }
        }
        ground.retired.extend(worker.log());
        worker = ground.scene.start(&[]);
        ground.incident("the end of memory", from);
        ground.recover().await;
    }
    let times = format!("{ends}, of which it ended by itself {by_itself}");
    ground.judge("worker::out_of_memory", "worker out of memory (RLIMIT_AS)", times, vec![worker]).await;
}

/// What is in flight is finished, the rest is for the next worker, and nothing at all comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated() {
    let ends = times(20, 3);
    let mut ground = Ground::set(&[]).await;
    ground.emit(4);
    let mut worker = ground.scene.worker(&[]).await;
    for _ in 0..ends {
        let arrived = ground.receiver.count();
        ground.load(500).await;
        ground.receiver.wait_for(DRAINED, arrived + 200).await;
        let began = std::time::Instant::now();
        within("a worker to drain", ground.stop(worker)).await;
        assert!(began.elapsed() < Duration::from_secs(15), "it took {:?} to drain", began.elapsed());
        worker = ground.scene.start(&[]);
        ground.recover().await;
        sleep(Duration::from_millis(100)).await;
    }
    let verdict = ground
        .judge(
            "worker::terminated",
            "worker told to stop under load (SIGTERM)",
            ends.to_string(),
            vec![worker],
        )
        .await;
    assert_eq!(verdict.repeated.values().sum::<usize>(), 0, "nothing comes twice");
}
