//! A stock client against the server side.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use menes_ws::{CloseCode, Config, upgrade};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::Instant,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, protocol::CloseFrame},
};

#[tokio::test]
async fn a_stock_client_talks_to_an_echo() {
    let (server, client) = duplex(4_096);
    let serving = tokio::spawn(async move {
        let deadline = Instant::now() + Duration::from_secs(5);
        let upgraded = upgrade(server, &Config::default(), deadline)
            .await
            .expect("upgrade");
        let mut stream = upgraded.stream;
        let mut buf = vec![0; 1_000];
        loop {
            let len = stream.read(&mut buf).await.expect("nothing wrong");
            if len == 0 {
                break;
            }
            stream.write_all(&buf[..len]).await.expect("open");
        }
        stream.shutdown().await.expect("open");
    });

    let (mut client, response) = client_async("ws://broker/", client).await.expect("upgrade");
    assert_eq!(response.status(), 101);
    client
        .send(Message::Ping(b"p".to_vec().into()))
        .await
        .expect("open");
    assert_eq!(
        client.next().await.expect("open").expect("pong"),
        Message::Pong("p".into())
    );

    let sent: Vec<u8> = (0..100_000u32).map(|at| at.to_le_bytes()[0]).collect();
    let (mut sink, mut source) = client.split();
    let sending = {
        let sent = sent.clone();
        tokio::spawn(async move {
            sink.send(Message::Binary(sent.into())).await.expect("open");
            sink.send(Message::Text("and text".into()))
                .await
                .expect("open");
            sink
        })
    };
    let mut got = Vec::new();
    while got.len() < sent.len() + 8 {
        match source.next().await.expect("open").expect("a frame") {
            Message::Binary(bytes) => got.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, [&sent[..], b"and text"].concat());

    let mut sink = sending.await.expect("no panic");
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "done".into(),
    };
    sink.send(Message::Close(Some(frame))).await.expect("open");
    match source.next().await.expect("open").expect("a frame") {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Normal),
        other => panic!("{other:?}"),
    }
    serving.await.expect("no panic");
}
