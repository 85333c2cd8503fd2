package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"mailcutover/test/peers"
)

// dial connects and wants the banner to begin as given.
func dial(t *testing.T, e *peers.Exchange, banner string) *textproto.Conn {
	t.Helper()
	c, err := textproto.Dial("tcp", e.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	want(t, c, banner)
	return c
}

// want reads a reply and wants it to begin as given.
func want(t *testing.T, c *textproto.Conn, begin string) string {
	t.Helper()
	var lines []string
	for {
		line, err := c.ReadLine()
		if err != nil {
			t.Fatalf("want %q, got %q and %v", begin, lines, err)
		}
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	if !strings.HasPrefix(lines[0], begin) {
		t.Fatalf("want %q, got %q", begin, lines)
	}
	return strings.Join(lines, "\n")
}

func talk(t *testing.T, c *textproto.Conn, dialogue ...string) {
	t.Helper()
	for i := 0; i < len(dialogue); i += 2 {
		if err := c.PrintfLine("%s", dialogue[i]); err != nil {
			t.Fatal(err)
		}
		want(t, c, dialogue[i+1])
	}
}

// message sends one and wants the answer to the dot to begin as given.
func message(t *testing.T, c *textproto.Conn, text, answer string, rcpts ...string) {
	t.Helper()
	talk(t, c, "MAIL FROM:<a@out.example>", "250 2.1.0 Sender OK")
	for _, rcpt := range rcpts {
		talk(t, c, "RCPT TO:<"+rcpt+">", "250 2.1.5 Recipient OK")
	}
	talk(t, c, "DATA", "354 Start mail input; end with <CRLF>.<CRLF>", text+"\r\n.", answer)
}

// wantFired waits, because the program's output comes by a pipe of its own.
func wantFired(t *testing.T, e *peers.Exchange, quirk string, n int) {
	t.Helper()
	peers.WaitFor(t, time.Minute, fmt.Sprintf("%dth quirk %s", n, quirk), func() bool { return e.Fired(quirk) >= n })
	if got := e.Fired(quirk); got != n {
		t.Errorf("quirk %s fired %d times, want %d", quirk, got, n)
	}
}

func TestDialogue(t *testing.T) {
	e := peers.StartExchange(t)
	c := dial(t, e, "220 EX01.corp.example Microsoft ESMTP MAIL Service ready at ")
	c.PrintfLine("EHLO me")
	ehlo := want(t, c, "250-EX01.corp.example Hello [127.0.0.1]")
	for _, line := range []string{"SIZE 37748736", "CHUNKING", "DSN", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES"} {
		if !strings.Contains(ehlo, line) {
			t.Errorf("EHLO lacks %s: %q", line, ehlo)
		}
	}
	talk(t, c, "RCPT TO:<b@x>", "503 5.5.2 Need mail command", "MAIL FROM:<a@x> SMTPUTF8", "555",
		"MAIL FROM:<a@x>", "250", "DATA", "503 5.5.2 Need rcpt command", "RSET", "250 2.0.0 Resetting",
		"BLURB", "500 5.3.3 Unrecognized command 'BLURB'")
	message(t, c, "Message-ID:\r\n <1@x>\r\n\r\nbare\nLF", "250 2.6.0 <1@x> [InternalId=1, Hostname=EX01.corp.example] 32 bytes in ", "b@x", "c@x")
	talk(t, c, "MAIL FROM:<a@x>", "250", "RCPT TO:<b@x>", "250", "BDAT 5\r\nabc", "250 2.6.0 CHUNK received OK, 5 octets",
		"BDAT 0 LAST", "250 2.6.0", "QUIT", "221 2.0.0 Service closing")
	got := e.Records(t)
	if len(got) != 2 || fmt.Sprint(got[0].Delivered) != "[b@x c@x]" || got[0].MessageID != "<1@x>" || got[0].Size != 32 ||
		got[0].From != "a@out.example" || got[1].Size != 5 || got[0].Stored != got[0].SHA256 || got[0].Body != nil {
		t.Errorf("records %+v", got)
	}
	e.Kill()
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(e.Records(t)); n != 2 {
		t.Errorf("%d records after a kill, want 2", n)
	}
}

func TestTarpitAndUnknown(t *testing.T) {
	e := peers.StartExchange(t, "-tarpit", "500ms", "-unknown", "no@x", "-smtputf8")
	c := dial(t, e, "220")
	talk(t, c, "EHLO me", "250", "MAIL FROM:<a@x> SMTPUTF8", "250")
	began := time.Now()
	talk(t, c, "RCPT TO:<No@x>", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient No@x")
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("a 550 after %v", took)
	}
	for tries := 1; ; tries++ { // a busy machine may be slow once, a tarpit always is
		began = time.Now()
		talk(t, c, "RCPT TO:<b@x>", "250")
		took := time.Since(began)
		if took < 500*time.Millisecond {
			break
		}
		if tries == 20 {
			t.Fatalf("a 250 after %v", took)
		}
	}
}

func TestMaxPerSource(t *testing.T) {
	e := peers.StartExchange(t, "-max-per-source", "2")
	first := dial(t, e, "220")
	dial(t, e, "220")
	third := dial(t, e, "421 4.3.2 The maximum number of concurrent connections has exceeded a limit")
	if _, err := third.ReadLine(); err != io.EOF {
		t.Errorf("after the 421: %v, want the end", err)
	}
	wantFired(t, e, "max-per-source", 1)
	talk(t, first, "QUIT", "221")
	peers.WaitFor(t, time.Minute, "place for one more", func() bool {
		c, err := textproto.Dial("tcp", e.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		line, err := c.ReadLine()
		return err == nil && strings.HasPrefix(line, "220")
	})
}

func TestTimeLimits(t *testing.T) {
	idle := dial(t, peers.StartExchange(t, "-idle", "50ms"), "220")
	want(t, idle, "421 4.4.1")

	// A busy connection, in the middle of a message, is as old as any.
	e := peers.StartExchange(t, "-total", "3s")
	c := dial(t, e, "220")
	talk(t, c, "EHLO me", "250", "MAIL FROM:<a@x>", "250", "RCPT TO:<b@x>", "250", "DATA", "354")
	began := time.Now()
	for c.PrintfLine("line") == nil && time.Since(began) < time.Minute {
		time.Sleep(time.Millisecond) // the pace of a slow sender
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("a busy connection ended after %v", took)
	}
	if got := e.Records(t); len(got) != 0 {
		t.Errorf("an incomplete message was stored: %+v", got)
	}
}

func TestBusyMailbox(t *testing.T) {
	e := peers.StartExchange(t, "-432", "busy@x=2,always@x")
	c := dial(t, e, "220")
	talk(t, c, "EHLO me", "250")
	message(t, c, "1", "432 4.3.2 STOREDRV", "b@x", "Busy@x")
	message(t, c, "2", "432 4.3.2 STOREDRV", "busy@x")
	message(t, c, "3", "250", "busy@x")
	message(t, c, "4", "250", "b@x")
	for range 3 {
		message(t, c, "5", "432 4.3.2", "always@x")
	}
	if got := e.Records(t); len(got) != 2 {
		t.Errorf("%d records, want 2", len(got))
	}
	wantFired(t, e, "432", 5)
}

func TestInsufficientResources(t *testing.T) {
	e := peers.StartExchange(t, "-452", "2")
	c := dial(t, e, "220")
	talk(t, c, "EHLO me", "250", "MAIL FROM:<a@x>", "452 4.3.1 Insufficient system resources", "MAIL FROM:<a@x>", "452 4.3.1",
		"MAIL FROM:<a@x>", "250")
	wantFired(t, e, "452", 2)
	c = dial(t, peers.StartExchange(t, "-452", "-1"), "220")
	talk(t, c, "EHLO me", "250", "MAIL FROM:<a@x>", "452", "MAIL FROM:<a@x>", "452", "MAIL FROM:<a@x>", "452")
}

func TestDedupe(t *testing.T) {
	for _, test := range []struct {
		flags []string
		want  string // how often b, c, and the message without id to b, were delivered
	}{
		{nil, "4 1"},
		{[]string{"-dedupe"}, "3 1"},
	} {
		e := peers.StartExchange(t, test.flags...)
		c := dial(t, e, "220")
		talk(t, c, "EHLO me", "250")
		message(t, c, "Message-ID: <1@x>\r\n\r\n1", "250", "b@x")
		message(t, c, "message-id: <1@x>\r\n\r\n1", "250", "B@x", "c@x")
		message(t, c, "Subject: none\r\n\r\n1", "250", "b@x")
		message(t, c, "Subject: none\r\n\r\n1", "250", "b@x")
		got := fmt.Sprint(len(e.Delivered(t, "b@x"))+len(e.Delivered(t, "B@x")), len(e.Delivered(t, "c@x")))
		if got != test.want {
			t.Errorf("%v: delivered %s, want %s", test.flags, got, test.want)
		}
		wantFired(t, e, "dedupe", len(test.flags))
		if n := len(e.Records(t)); n != 4 {
			t.Errorf("%v: %d records, want 4: each was answered 250", test.flags, n)
		}
	}
}

func TestRewrite(t *testing.T) {
	e := peers.StartExchange(t, "-rewrite", "-bodies")
	c := dial(t, e, "220")
	talk(t, c, "EHLO me", "250")
	message(t, c, "Received: by us\r\n with id 4711\r\nSubject: x\r\nMessage-ID: <1@x>\r\nContent-Type: multipart/mixed;\r\n boundary=\"b1\"\r\n\r\n"+
		"--b1\r\nContent-Type: text/plain\r\n\r\nid 4711\r\n--b1--", "250", "b@x")
	r := e.Records(t)[0]
	if r.Stored == r.SHA256 || bytes.Contains(r.Body, []byte("b1")) {
		t.Errorf("not rewritten: %s", r.Body)
	}
	m, err := mail.ReadMessage(bytes.NewReader(r.Body))
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Message-ID") != "<1@x>" || len(m.Header["Received"]) != 2 || m.Header["Received"][1] != "by us with id 4711" {
		t.Errorf("header %v", m.Header)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	part, err := multipart.NewReader(m.Body, params["boundary"]).NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(part); err != nil || string(text) != "id 4711" {
		t.Errorf("part %q, %v", text, err)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-432", "a@x=0"}, {"-unknown", "a@x=b"}, {"extra"}, {"-listen", "nowhere"}, {"-record", "/no/such/dir/file"}, {"-x"}} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := run(ctx, args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
		cancel()
	}
	if err := run(t.Context(), []string{"-h"}, io.Discard, io.Discard); err != nil {
		t.Errorf("-h: %v", err)
	}
}
