//! What the attribute writes names nothing by a short path: it stands in a crate without a prelude, in a module where
//! every name that it could have meant is something else, and the calls still arrive.
//!
//! Lints that applications may deny are denied here too, so that none of them fires in generated code.
#![no_implicit_prelude]
#![deny(warnings, missing_docs, unreachable_pub, elided_lifetimes_in_paths, unused_qualifications, missing_debug_implementations)]
#![deny(single_use_lifetimes, unused_lifetimes, unnameable_types, unused_results, let_underscore_drop, clippy::pedantic)]
#![allow(clippy::ptr_arg, clippy::wrong_self_convention, clippy::missing_errors_doc, reason = "they speak of traits as written")]

use ::std::assert_eq;

/// Everything that is called like something that generated code uses.
mod shadows {
    #![allow(dead_code, non_snake_case, non_upper_case_globals, missing_docs, unreachable_pub, missing_debug_implementations)]

    pub struct Result;
    pub struct Option;
    pub struct Box;
    pub struct Vec;
    pub struct String;
    pub struct Arc;
    pub struct Rc;
    pub struct Pin;
    pub struct PhantomData;
    pub struct Request;
    pub struct Reply;
    pub struct Call;
    pub struct Channel;
    pub struct Backend;
    pub struct Context;
    pub struct Streaming;
    pub struct Never;
    pub struct S;
    pub struct T;
    pub fn Ok() {}
    pub fn Err() {}
    pub fn Some() {}
    pub fn argument() {}
    pub fn answer() {}
    pub fn error() {}
    pub fn outcome() {}
    pub const None: () = ();
    pub trait Send {}
    pub trait Sync {}
    pub trait Sized {}
    pub trait Clone {}
    pub trait Debug {}
    pub trait Future {}
    pub trait Service {}
    pub trait Client {}
    pub trait ToOwned {
        fn to_owned(&self) {}
        fn clone(&self) {}
        fn into(&self) {}
        fn decode(&self) {}
        fn reply(&self) {}
        fn serve(&self) {}
        fn direct(&self) {}
        fn in_context(&self) {}
    }
    // Methods of these names are there for everything.
    impl<A: ?::core::marker::Sized> ToOwned for A {}
    pub mod std {}
    pub mod core {}
    pub mod alloc {}
    pub mod rpc {}
    pub mod serde {}
    pub mod tokio {}
}

/// What the types of `Open` are asked for.
trait Value:
    ::serde::Serialize + ::serde::de::DeserializeOwned + ::core::clone::Clone + ::core::marker::Send + ::core::marker::Sync + 'static
{
}

impl Value for ::std::string::String {}
impl Value for () {}
impl Value for u32 {}

/// Items are called alike, arguments are called as generated code calls its own, and so are methods.
mod forms {
    #[allow(unused_imports, reason = "that nothing means them is what is tested")]
    use super::shadows::*;

    /// A row.
    #[derive(::core::clone::Clone, ::core::fmt::Debug, ::core::cmp::PartialEq, ::serde::Serialize, ::serde::Deserialize)]
    pub(crate) struct Row {
        pub(crate) id: u32,
    }

    /// An error.
    #[derive(::core::clone::Clone, ::core::fmt::Debug, ::core::cmp::PartialEq, ::serde::Serialize, ::serde::Deserialize)]
    pub(crate) struct Refused;

    impl ::core::fmt::Display for Refused {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.write_str("refused")
        }
    }

    impl ::core::error::Error for Refused {}

    /// A service of every form.
    #[::rpc::service]
    pub(crate) trait Forms {
        /// All that is borrowed.
        async fn borrowed(
            &self,
            service: &str,
            request: &[u8],
            channel: &[Row],
            call: &Row,
            result: &::std::vec::Vec<u8>,
        ) -> ::rpc::Result<usize>;
        /// All that is owned.
        async fn owned(
            &self,
            items: ::std::vec::Vec<u8>,
            context: ::core::option::Option<::std::vec::Vec<u8>>,
            arguments: Row,
            r#type: (),
            cx: &::rpc::Context,
        ) -> ::rpc::Result<(usize, bool)>;
        /// Bytes.
        async fn bytes(&self) -> ::rpc::Result<::std::vec::Vec<u8>>;
        /// Bytes, or none.
        async fn maybe(&self, fault: ()) -> ::rpc::Result<::core::option::Option<::std::vec::Vec<u8>>, Refused>;
        /// Items down.
        async fn down(&self, backend: u32) -> ::rpc::Result<::rpc::Streaming<Row, Refused>, Refused>;
        /// Items up.
        async fn up(&self, first: u32, stream: ::rpc::Streaming<Row>) -> ::rpc::Result<u32>;
        /// Items both ways.
        async fn both(
            &self,
            stream: ::rpc::Streaming<::std::vec::Vec<u8>>,
        ) -> ::rpc::Result<::rpc::Streaming<::std::vec::Vec<u8>>>;
        /// No answer.
        #[rpc(oneway, idempotent, spawn)]
        async fn note(&self, id: u32) -> ::rpc::Result<()>;
        /// Called as what every client has.
        #[rpc(name = "r#match")]
        async fn clone(&self) -> ::rpc::Result<()>;
        /// A keyword.
        async fn r#match(&self) -> ::rpc::Result<()>;
        /// Called as methods of the traits that generated code uses.
        async fn new(&self) -> ::rpc::Result<()>;
        /// See above.
        async fn info(&self) -> ::rpc::Result<()>;
        /// See above.
        async fn call(&self) -> ::rpc::Result<()>;
        /// See above.
        async fn into_local(&self) -> ::rpc::Result<()>;
        /// Nobody should call it.
        #[deprecated = "call `new`"]
        async fn old(&self) -> ::rpc::Result<()>;
    }

    /// The same on one thread.
    #[::rpc::service(local)]
    pub(crate) trait Confined {
        /// All that is borrowed.
        async fn borrowed(&self, service: &str, request: &[u8], row: &Row, cx: &::rpc::Context) -> ::rpc::Result<usize, Refused>;
        /// Bytes.
        async fn bytes(&self, handler: ::std::vec::Vec<u8>) -> ::rpc::Result<::std::vec::Vec<u8>>;
        /// Items both ways.
        async fn both(&self, service: ::rpc::Streaming<Row>) -> ::rpc::Result<::rpc::Streaming<Row>>;
        /// No answer.
        #[rpc(oneway)]
        async fn note(&self, id: u32) -> ::rpc::Result<()>;
    }

    /// Parameters that are called as generated code calls its own.
    #[::rpc::service]
    pub(crate) trait Open<S, T = ()>
    where
        S: crate::Value,
        T: crate::Value,
    {
        /// Turns them around.
        async fn turn(&self, s: S, t: &T) -> ::rpc::Result<(T, S)>;
    }

    /// A trait that is called as generated code calls implementors.
    pub(crate) mod named_s {
        /// See above.
        #[::rpc::service]
        pub(crate) trait S {
            /// Nothing.
            async fn s(&self) -> ::rpc::Result<()>;
        }
    }

    /// Nobody should serve it.
    #[deprecated = "serve `Forms`"]
    #[::rpc::service]
    pub(crate) trait Old {
        /// Nothing.
        async fn old(&self) -> ::rpc::Result<()>;
    }

    /// Nothing to call.
    #[::rpc::service]
    pub(crate) trait Empty {}
}

/// Plain implementations, with the prelude.
mod served {
    use ::std::prelude::rust_2024::*;
    use ::std::rc::Rc;
    use ::std::sync::atomic::{AtomicU32, Ordering};
    use ::std::vec;

    use ::rpc::{Context, Result, Streaming};

    use super::Value;
    #[allow(deprecated, reason = "somebody has to")]
    use super::forms::Old;
    use super::forms::{Confined, Forms, Open, Refused, Row, named_s};

    #[derive(Default)]
    pub(super) struct Plain {
        pub(super) noted: AtomicU32,
    }

    impl Forms for Plain {
        async fn borrowed(&self, text: &str, bytes: &[u8], rows: &[Row], row: &Row, vector: &Vec<u8>) -> Result<usize> {
            Ok(text.len() + bytes.len() + rows.len() + row.id as usize + vector.len())
        }

        async fn owned(
            &self,
            items: Vec<u8>,
            context: Option<Vec<u8>>,
            arguments: Row,
            (): (),
            cx: &Context,
        ) -> Result<(usize, bool)> {
            let bytes = items.len() + context.map_or(0, |bytes| bytes.len());
            Ok((bytes + arguments.id as usize, cx.peer().is_some()))
        }

        async fn bytes(&self) -> Result<Vec<u8>> {
            Ok(vec![7; 3])
        }

        async fn maybe(&self, (): ()) -> Result<Option<Vec<u8>>, Refused> {
            Ok(Some(vec![7]))
        }

        async fn down(&self, count: u32) -> Result<Streaming<Row, Refused>, Refused> {
            if count == 0 {
                Err(Refused)?;
            }
            Ok((0..count).map(|id| Row { id }).collect())
        }

        async fn up(&self, first: u32, mut stream: Streaming<Row>) -> Result<u32> {
            let mut sum = first;
            while let Some(row) = stream.next().await {
                sum += row?.id;
            }
            Ok(sum)
        }

        async fn both(&self, stream: Streaming<Vec<u8>>) -> Result<Streaming<Vec<u8>>> {
            Ok(stream)
        }

        async fn note(&self, id: u32) -> Result<()> {
            let _before = self.noted.fetch_add(id, Ordering::SeqCst);
            Ok(())
        }

        async fn clone(&self) -> Result<()> {
            Ok(())
        }

        async fn r#match(&self) -> Result<()> {
            Ok(())
        }

        async fn new(&self) -> Result<()> {
            Ok(())
        }

        async fn info(&self) -> Result<()> {
            Ok(())
        }

        async fn call(&self) -> Result<()> {
            Ok(())
        }

        async fn into_local(&self) -> Result<()> {
            Ok(())
        }

        async fn old(&self) -> Result<()> {
            Ok(())
        }
    }

    pub(super) struct Home(pub(super) Rc<AtomicU32>);

    impl Confined for Home {
        async fn borrowed(&self, text: &str, bytes: &[u8], row: &Row, cx: &Context) -> Result<usize, Refused> {
            let _home = Rc::clone(&self.0);
            ::tokio::task::yield_now().await;
            Ok(text.len() + bytes.len() + row.id as usize + usize::from(cx.peer().is_some()))
        }

        async fn bytes(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
            Ok(bytes)
        }

        async fn both(&self, stream: Streaming<Row>) -> Result<Streaming<Row>> {
            Ok(stream)
        }

        async fn note(&self, id: u32) -> Result<()> {
            let _before = self.0.fetch_add(id, Ordering::SeqCst);
            Ok(())
        }
    }

    impl<S: Value, T: Value> Open<S, T> for Plain {
        async fn turn(&self, s: S, t: &T) -> Result<(T, S)> {
            Ok((t.clone(), s))
        }
    }

    impl named_s::S for Plain {
        async fn s(&self) -> Result<()> {
            Ok(())
        }
    }

    #[allow(deprecated, reason = "somebody has to")]
    impl Old for Plain {
        async fn old(&self) -> Result<()> {
            Ok(())
        }
    }

    impl super::forms::Empty for Plain {}
}

/// The calls, with the prelude.
mod tests {
    use ::std::prelude::rust_2024::*;
    use ::std::rc::Rc;
    use ::std::string::String;
    use ::std::sync::Arc;
    use ::std::sync::atomic::{AtomicU32, Ordering};
    use ::std::time::Duration;
    use ::std::{assert, vec};

    use ::futures::{StreamExt, stream};
    use ::rpc::{Error, Server};
    use ::tokio::time::timeout;

    use super::assert_eq;
    use super::forms::named_s::{SClient, SServer};
    use super::forms::{
        Confined, ConfinedClient, ConfinedServer, EmptyClient, EmptyServer, Forms, FormsClient, FormsServer, OldClient,
        OldServer, OpenClient, OpenServer, Refused, Row,
    };
    use super::served::{Home, Plain};

    const ROWS: [Row; 2] = [Row { id: 1 }, Row { id: 2 }];

    fn run<F: Future>(test: F) {
        let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        drop(runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("the test hung") }));
    }

    async fn noted(number: &AtomicU32, expected: u32) {
        while number.load(Ordering::SeqCst) < expected {
            ::tokio::task::yield_now().await;
        }
    }

    /// Every method of the trait, by the trait.
    async fn by_the_trait(forms: &impl Forms) {
        let vector = vec![0; 5];
        assert_eq!(forms.borrowed("ab", &[1, 2, 3], &ROWS, &ROWS[0], &vector).await.unwrap(), 2 + 3 + 2 + 1 + 5);
        let cx = ::rpc::Context::default();
        assert_eq!(forms.owned(vec![1], Some(vec![2, 3]), Row { id: 4 }, (), &cx).await.unwrap().0, 7);
        assert_eq!(forms.bytes().await.unwrap(), [7, 7, 7]);
        assert_eq!(forms.maybe(()).await.unwrap(), Some(vec![7]));
        let down: Vec<_> = forms.down(2).await.unwrap().map(|row| row.unwrap().id).collect().await;
        assert_eq!(down, [0, 1]);
        assert_eq!(forms.down(0).await.unwrap_err(), Error::App(Refused));
        assert_eq!(forms.up(4, ROWS.into_iter().collect()).await.unwrap(), 7);
        let both: Vec<_> = forms.both([vec![1], vec![]].into_iter().collect()).await.unwrap().map(Result::unwrap).collect().await;
        assert_eq!(both, [vec![1], vec![]]);
        forms.note(1).await.unwrap();
        forms.clone().await.unwrap();
        forms.r#match().await.unwrap();
        forms.new().await.unwrap();
        forms.info().await.unwrap();
        forms.call().await.unwrap();
        forms.into_local().await.unwrap();
    }

    /// Every method of the client, by its own.
    async fn by_the_client(forms: &FormsClient) {
        let vector = vec![0; 5];
        assert_eq!(forms.borrowed("ab", &[1, 2, 3], &ROWS, &ROWS[0], &vector).await.unwrap(), 2 + 3 + 2 + 1 + 5);
        assert_eq!(forms.owned(vec![1], Some(vec![2, 3]), Row { id: 4 }, ()).await.unwrap(), (7, true));
        assert_eq!(forms.bytes().await.unwrap(), [7, 7, 7]);
        assert_eq!(forms.maybe(()).await.unwrap(), Some(vec![7]));
        let down: Vec<_> = forms.down(2).await.unwrap().map(|row| row.unwrap().id).collect().await;
        assert_eq!(down, [0, 1]);
        assert_eq!(forms.up(4, stream::iter(ROWS)).await.unwrap(), 7);
        let both: Vec<_> = forms.both(stream::iter([vec![1], vec![]])).await.unwrap().map(Result::unwrap).collect().await;
        assert_eq!(both, [vec![1], vec![]]);
        forms.note(1).await.unwrap();
        forms.clone().await.unwrap();
        forms.r#match().await.unwrap();
        forms.new().await.unwrap();
        forms.info().await.unwrap();
        forms.call().await.unwrap();
        forms.into_local().await.unwrap();
        #[allow(deprecated, reason = "somebody has to")]
        forms.old().await.unwrap();
    }

    #[test]
    fn every_form_works_where_no_name_means_what_it_should() {
        run(async {
            let service = Arc::new(Plain::default());
            let server = Server::builder().service(FormsServer::new(Clone::clone(&service))).listen("mem://forms").await.unwrap();
            let remote: FormsClient = ::rpc::connect(server.endpoint()).await.unwrap();
            let local = ::rpc::local::<FormsClient>(FormsServer::new(Clone::clone(&service)));
            for client in [&remote, &local] {
                by_the_client(client).await;
                by_the_trait(client).await;
            }
            by_the_trait(&service).await;
            noted(&service.noted, 5).await;
        });
    }

    #[test]
    fn every_form_of_a_local_service_works_there_too() {
        run(::tokio::task::LocalSet::new().run_until(async {
            let number = Rc::new(AtomicU32::new(0));
            let server = ConfinedServer::new(Home(Rc::clone(&number)));
            let server = Server::builder().service(server).listen("mem://confined").await.unwrap();
            let remote: ConfinedClient = ::rpc::connect(server.endpoint()).await.unwrap();
            let local = ::rpc::local::<ConfinedClient>(ConfinedServer::new(Home(Rc::clone(&number))));
            for client in [&remote, &local] {
                assert_eq!(client.borrowed("ab", &[1], &ROWS[1]).await.unwrap(), 2 + 1 + 2 + 1);
                let cx = ::rpc::Context::default();
                assert_eq!(Confined::borrowed(client, "ab", &[1], &ROWS[1], &cx).await.unwrap(), 2 + 1 + 2 + 1);
                assert_eq!(client.bytes(vec![1, 2]).await.unwrap(), [1, 2]);
                let both: Vec<_> = client.both(stream::iter(ROWS)).await.unwrap().map(Result::unwrap).collect().await;
                assert_eq!(both, ROWS);
                let both = Confined::both(client, ROWS.into_iter().collect()).await.unwrap();
                assert_eq!(both.map(Result::unwrap).collect::<Vec<_>>().await, ROWS);
                client.note(1).await.unwrap();
            }
            noted(&number, 2).await;
        }));
    }

    #[test]
    fn parameters_and_traits_may_be_called_as_generated_code_calls_its_own() {
        run(async {
            let server = Server::builder()
                .service(OpenServer::<Plain, String, u32>::new(Plain::default()))
                .service(SServer::new(Plain::default()))
                .service(EmptyServer::new(Plain::default()))
                .listen("mem://open")
                .await
                .unwrap();
            let connection = ::rpc::Connection::open(server.endpoint()).await.unwrap();
            let open: OpenClient<String, u32> = connection.session().open().await.unwrap();
            assert_eq!(open.turn(String::from("s"), &7).await.unwrap(), (7, String::from("s")));
            let s: SClient = connection.session().open().await.unwrap();
            s.s().await.unwrap();
            let _empty: EmptyClient = connection.session().open().await.unwrap();
        });
    }

    #[test]
    fn a_deprecated_service_is_served_without_a_warning_in_generated_code() {
        run(async {
            let old = ::rpc::local::<OldClient>(OldServer::new(Plain::default()));
            old.old().await.unwrap();
            assert!(::rpc::describe::<OldClient>().methods.len() == 1);
        });
    }
}
