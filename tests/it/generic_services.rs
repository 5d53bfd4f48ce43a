//! Services that leave types open: the trait has parameters, and so have its client and its server.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use futures::stream;
use rpc::{FaultKind, Server, Streaming};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::harness::run;

/// What this module asks of everything that travels.
trait Value: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static> Value for T {}

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("no such key: {0}")]
struct Missing<K>(K);

#[rpc::service]
trait Store<K: Value, V = String>
where
    K: Eq + Hash + std::fmt::Display,
    V: Value,
{
    async fn put(&self, key: K, value: &V) -> rpc::Result<Option<V>>;
    async fn get(&self, cx: &rpc::Context, key: &K) -> rpc::Result<V, Missing<K>>;
    async fn all(&self, keys: &[K]) -> rpc::Result<Streaming<(K, V)>>;
    async fn load(&self, rows: Streaming<(K, V)>) -> rpc::Result<u64>;
    async fn follow(&self, keys: Streaming<K>) -> rpc::Result<Streaming<Option<V>>>;
    #[rpc(oneway)]
    async fn forget(&self, key: K) -> rpc::Result<()>;
}

#[derive(Debug)]
struct Memory<K, V>(Arc<Mutex<HashMap<K, V>>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Value + Eq + Hash + std::fmt::Display, V: Value> Store<K, V> for Memory<K, V> {
    async fn put(&self, key: K, value: &V) -> rpc::Result<Option<V>> {
        Ok(self.0.lock().unwrap().insert(key, value.clone()))
    }

    async fn get(&self, _: &rpc::Context, key: &K) -> rpc::Result<V, Missing<K>> {
        tokio::task::yield_now().await;
        let value = self.0.lock().unwrap().get(key).cloned();
        Ok(value.ok_or_else(|| Missing(key.clone()))?)
    }

    async fn all(&self, keys: &[K]) -> rpc::Result<Streaming<(K, V)>> {
        let rows = self.0.lock().unwrap();
        Ok(keys.iter().filter_map(|key| Some((key.clone(), rows.get(key)?.clone()))).collect())
    }

    async fn load(&self, mut rows: Streaming<(K, V)>) -> rpc::Result<u64> {
        let mut loaded = 0;
        while let Some(row) = rows.next().await {
            let (key, value) = row?;
            self.0.lock().unwrap().insert(key, value);
            loaded += 1;
        }
        Ok(loaded)
    }

    async fn follow(&self, keys: Streaming<K>) -> rpc::Result<Streaming<Option<V>>> {
        let rows = Arc::clone(&self.0);
        Ok(Streaming::from_results(futures::StreamExt::map(keys, move |key| Ok(rows.lock().unwrap().get(&key?).cloned()))))
    }

    async fn forget(&self, key: K) -> rpc::Result<()> {
        self.0.lock().unwrap().remove(&key);
        Ok(())
    }
}

/// Code over the trait does not care for the types either.
async fn exercise<K, V>(store: &impl Store<K, V>, rows: Vec<(K, V)>, unknown: K)
where
    K: Value + Eq + Hash + std::fmt::Display,
    V: Value + PartialEq,
{
    let cx = rpc::Context::default();
    let (key, value) = rows[0].clone();
    assert_eq!(store.put(key.clone(), &value).await.unwrap(), None);
    assert_eq!(store.get(&cx, &key).await.unwrap(), value);
    let error = store.get(&cx, &unknown).await.unwrap_err();
    assert_eq!(error.app().map(ToString::to_string), Some(format!("no such key: {unknown}")));
    assert_eq!(store.load(rows.iter().cloned().collect()).await.unwrap(), rows.len() as u64);
    let keys: Vec<K> = rows.iter().map(|(key, _)| key.clone()).collect();
    let mut all = store.all(&keys).await.unwrap();
    for row in &rows {
        assert_eq!(all.next().await.transpose().unwrap().map(|(_, value)| value), Some(row.1.clone()));
    }
    assert!(all.next().await.is_none());
    let asked = keys.iter().cloned().chain([unknown]).collect();
    let mut found = store.follow(asked).await.unwrap();
    for row in &rows {
        assert_eq!(found.next().await.unwrap().unwrap(), Some(row.1.clone()));
    }
    assert_eq!(found.next().await.unwrap().unwrap(), None);
    store.forget(key).await.unwrap();
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point {
    x: f32,
    tags: Vec<String>,
}

fn words() -> Vec<(u32, String)> {
    vec![(1, "one".to_owned()), (2, "two".to_owned())]
}

fn points() -> Vec<(String, Point)> {
    let point = |x: f32| Point { x, tags: vec!["a".to_owned(); 3] };
    vec![("p".to_owned(), point(0.5)), ("q".to_owned(), point(-1.0))]
}

#[test]
fn a_service_with_open_types_serves_each_of_its_instantiations() {
    run(async {
        // Two listeners, for both services have the same name.
        let of_words = StoreServer::new(Memory::<u32, String>::default());
        let of_words = Server::builder().service(of_words).listen("tcp://127.0.0.1:0").await.unwrap();
        let of_points = StoreServer::new(Memory::<String, Point>::default());
        let of_points = Server::builder().service(of_points).listen("mem://points").await.unwrap();

        // The second type has a default.
        let client: StoreClient<u32> = rpc::connect(of_words.endpoint()).await.unwrap();
        exercise(&client, words(), 9).await;
        let client: StoreClient<String, Point> = rpc::connect(of_points.endpoint()).await.unwrap();
        exercise(&client, points(), "z".to_owned()).await;

        exercise(&Memory::default(), words(), 9).await;
        exercise(&Arc::new(Memory::default()), points(), "z".to_owned()).await;
        let local = rpc::local::<StoreClient<String, Point>>(StoreServer::new(Memory::default()));
        exercise(&local, points(), "z".to_owned()).await;
    });
}

#[test]
fn the_calls_of_a_generic_client_take_options_and_any_stream() {
    run(async {
        let server = Server::builder().service(StoreServer::new(Memory::<u32, String>::default()));
        let server = server.listen("tcp://127.0.0.1:0").await.unwrap();
        let client: StoreClient<u32, String> = rpc::connect(server.endpoint()).await.unwrap();
        let clone = client.clone();
        let load = clone.load(stream::iter(words())).timeout(crate::lab::LONG);
        assert_eq!(tokio::spawn(load).await.unwrap().unwrap(), 2);
        assert_eq!(client.get(&2).await.unwrap(), "two");
        assert_eq!(format!("{client:?}"), "StoreClient { .. }");
    });
}

#[test]
fn all_instantiations_have_one_name_on_the_wire() {
    let (words, points) = (rpc::describe::<StoreClient<u32>>(), rpc::describe::<StoreClient<String, Point>>());
    assert_eq!(words, points);
    assert_eq!(words.name, "Store");
    run(async {
        // So the listener cannot tell them apart, and says so.
        let both = Server::builder()
            .service(StoreServer::new(Memory::<u32, String>::default()))
            .service(StoreServer::new(Memory::<String, Point>::default()));
        let refused = both.listen("mem://both").await.unwrap_err().to_string();
        assert!(refused.contains("two services are named `Store`"), "{refused}");
        // And a client of another instantiation hears that its arguments make no sense.
        let server = StoreServer::new(Memory::<String, Point>::default());
        let server = Server::builder().service(server).listen("mem://other").await.unwrap();
        let client: StoreClient<u32, u32> = rpc::connect(server.endpoint()).await.unwrap();
        let fault = client.put(u32::MAX, &7).await.unwrap_err();
        assert_eq!(fault.fault().map(|fault| (fault.kind(), fault.may_have_run())), Some((FaultKind::Incompatible, false)));
    });
}

/// A constant may be left open too. No argument names it, so nothing but its uses can tell it.
#[rpc::service]
trait Rounds<const N: usize> {
    async fn round(&self, number: f64) -> rpc::Result<(usize, f64)>;
}

struct Decimal;

impl<const N: usize> Rounds<N> for Decimal {
    async fn round(&self, number: f64) -> rpc::Result<(usize, f64)> {
        let scale = 10f64.powi(N as i32);
        Ok((N, (number * scale).round() / scale))
    }
}

#[test]
fn a_service_may_leave_a_constant_open() {
    run(async {
        let server = RoundsServer::<_, 2>::new(Decimal);
        let server = Server::builder().service(server).listen("mem://rounds").await.unwrap();
        let client: RoundsClient<2> = rpc::connect(server.endpoint()).await.unwrap();
        assert_eq!(client.round(1.005_1).await.unwrap(), (2, 1.01));
        let local = rpc::local::<RoundsClient<0>>(RoundsServer::<_, 0>::new(Decimal));
        assert_eq!(local.round(1.6).await.unwrap(), (0, 2.0));
    });
}
