package smtp

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
)

// TestOptionsAreChecked wants all that is wrong at once.
func TestOptionsAreChecked(t *testing.T) {
	_, err := NewServer(Options{RequireTLS: true}, &recorder{})
	if err == nil {
		t.Fatal("options without anything are accepted")
	}
	for _, want := range []string{"id", "protocol", "hostname", "origin", "bare line ends", "certificate", "command bytes", "recipients", "idle, read"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %q: %v", want, err)
		}
	}
	if _, err := NewServer(testOptions(), &recorder{}); err != nil {
		t.Error(err)
	}
}

// TestRecipientsInBatches wants the recipients that arrive together to be decided
// together, with the answers in order, whatever stands between them.
func TestRecipientsInBatches(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	_, addr := startServer(t, testOptions(), r)
	p := dial(t, addr).hello()
	p.send("MAIL FROM:<a@out.example>\r\nRCPT TO:<b@in.example>\r\nRCPT TO:<no@in.example>\r\nRCPT TO:<later@in.example>\r\nRCPT TO:<unforeseen@in.example>\r\nRCPT TO:<\r\nRCPT TO:<c@in.example> NOTIFY=NEVER\r\n")
	for _, want := range []string{"250 2.1.0", "250 2.1.5", "550 5.1.1 No such", "451 4.3.2 Not now", "451 4.3.0 Local error", "501 5.5.4", "250 2.1.5"} {
		if got := p.expect(want); strings.Contains(got, "secret") {
			t.Errorf("answer shows what it must not: %q", got)
		}
	}
	p.command("QUIT", "221 ")
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.batches) != 2 || len(r.batches[0]) != 4 || len(r.batches[1]) != 1 {
		t.Errorf("recipients were decided as %v, want four and one", r.batches)
	}
	if n := r.batches[1][0].Options.Notify; !reflect.DeepEqual(n, []gosmtp.DSNNotify{gosmtp.DSNNotifyNever}) {
		t.Errorf("NOTIFY is %v", n)
	}
}

// TestParametersPassUnchanged wants what a platform is to be told to arrive as it stood.
func TestParametersPassUnchanged(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	_, addr := startServer(t, testOptions(), r)
	p := dial(t, addr).hello()
	p.command("MAIL FROM:<a@out.example> SIZE=12 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=a+2Bb AUTH=x+40y", "250 ")
	p.command("RCPT TO:<b@in.example> ORCPT=rfc822;o+2Bp@in.example NOTIFY=DELAY,FAILURE", "250 ")
	p.command("RCPT TO:<b@in.example> ORCPT=UTF-8;m\u00fc\\x{FC}@in.example", "250 ")
	r.mu.Lock()
	defer r.mu.Unlock()
	want := gosmtp.MailOptions{Size: 12, Body: gosmtp.Body8BitMIME, UTF8: true, Return: gosmtp.DSNReturnFull, EnvelopeID: "a+2Bb"}
	if !reflect.DeepEqual(*r.options[0], want) {
		t.Errorf("options are %+v, want %+v", *r.options[0], want)
	}
	if o := r.batches[0][0].Options; o.OriginalRecipient != "o+2Bp@in.example" || o.OriginalRecipientType != gosmtp.DSNAddressTypeRFC822 || len(o.Notify) != 2 {
		t.Errorf("recipient's options are %+v", o)
	}
	if o := r.batches[1][0].Options; o.OriginalRecipient != "m\u00fc\\x{FC}@in.example" || o.OriginalRecipientType != gosmtp.DSNAddressTypeUTF8 {
		t.Errorf("recipient's options are %+v", o)
	}
}

// TestOffers wants EHLO to tell what can be had, and what can't to be refused.
func TestOffers(t *testing.T) {
	t.Parallel()
	o := testOptions()
	var size atomic.Int64
	var eight atomic.Bool
	o.AnnounceSize, o.Announce8Bit, o.AnnounceUTF8 = size.Load, eight.Load, func() bool { return false }
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr)
	p.expect("220 mx.example ESMTP")
	got := p.command("EHLO x", "250-mx.example\r\n")
	for word, want := range map[string]bool{
		"PIPELINING": true, "SIZE 104857600": true, "8BITMIME": false, "SMTPUTF8": false, "CHUNKING": true, "DSN": true,
		"ENHANCEDSTATUSCODES": true, "STARTTLS": false, "XFORWARD": false, "AUTH": false, "BINARYMIME": false,
	} {
		if strings.Contains(got, word) != want {
			t.Errorf("%s: announced is %v, want %v:\n%s", word, !want, want, got)
		}
	}
	p.command("MAIL FROM:<a@out.example> BODY=8BITMIME", "555 ")
	p.command("MAIL FROM:<a@out.example> SMTPUTF8", "555 ")
	size.Store(1000)
	eight.Store(true)
	if got := p.command("EHLO x", "250-"); !strings.Contains(got, "SIZE 1000\r\n") || !strings.Contains(got, "8BITMIME") {
		t.Errorf("second EHLO is answered %q", got)
	}
	p.command("MAIL FROM:<a@out.example> BODY=8BITMIME SIZE=1001", "552 5.3.4")
	p.command("MAIL FROM:<a@out.example> BODY=8BITMIME SIZE=1000", "250 ")
}

// TestSizeIsCountedAsRFC1870 has messages of exactly the limit and one byte more:
// CRLFs count, doubled dots and the last dot don't.
func TestSizeIsCountedAsRFC1870(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.MessageBytes = 10
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr).hello()
	for content, want := range map[string]string{
		"..2345678\r\n": "250 ", "..23456789\r\n": "552 5.3.4", "12\r\n45\r\n90\r\n": "552 5.3.4", "12\r\n4567\r\n": "250 ",
	} {
		p.envelope().command("DATA", "354 ")
		p.command(content+".", want)
	}
	p.envelope().send("BDAT 10 LAST\r\n12345678\r\n")
	p.expect("250 ")
	p.envelope().send("BDAT 11 LAST\r\n123456789\r\n")
	p.expect("552 5.3.4")
	p.command("NOOP", "250 ")
}

// TestEarlyReturn has sessions that don't read the message, in all ways, and wants the
// dialogue to stay in step, and nothing to be accepted that was not read to the end.
func TestEarlyReturn(t *testing.T) {
	t.Parallel()
	readSome := func(b Body) { _, _ = b.Read(make([]byte, 5)) }
	refusal := mail.NewReply(452, 4, 3, 1, "No room")
	for _, c := range []struct {
		name string
		data func(ctx context.Context, b Body, rcpts int) []error
		go354,
		chunk string // answers to DATA and its dot, and to the last chunk
	}{
		{"refused before 354", func(_ context.Context, _ Body, n int) []error { return answers(n, refusal) }, "452 ", "452 4.3.1"},
		{"accepted without reading", func(_ context.Context, _ Body, n int) []error { return answers(n, nil) }, "451 ", "451 4.3.0"},
		{"refused within", func(_ context.Context, b Body, n int) []error { readSome(b); return answers(n, refusal) }, "354 452", "452 4.3.1"},
		{"accepted within", func(_ context.Context, b Body, n int) []error { readSome(b); return answers(n, nil) }, "354 451", "451 4.3.0"},
		{"accepted before the last Read", func(_ context.Context, b Body, n int) []error {
			_, _ = io.ReadFull(b, make([]byte, 79))
			return answers(n, nil)
		}, "354 451", "451 4.3.0"},
		{"no answer", func(_ context.Context, b Body, n int) []error { _, _ = io.Copy(io.Discard, b); return nil }, "354 451", "451 4.3.0"},
		{"error that is a success", func(_ context.Context, b Body, n int) []error {
			_, _ = io.Copy(io.Discard, b)
			return answers(n, mail.NewReply(250, 2, 0, 0, "fine"))
		}, "354 451", "451 4.3.0"},
		{"several lines", func(_ context.Context, b Body, n int) []error {
			_, _ = io.Copy(io.Discard, b)
			return answers(n, fmt.Errorf("platform: %w", mail.NewReply(554, 5, 7, 1, "one\ntwo\r\nthree\x07")))
		}, "354 554-", "554-5.7.1 one\r\n554-5.7.1 two\r\n554 5.7.1 three?\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, addr := startServer(t, testOptions(), &recorder{data: c.data})
			p := dial(t, addr).hello().envelope()
			p.send("DATA\r\n")
			want, next, streamed := strings.Cut(c.go354, " ")
			p.expect(want)
			if streamed && next != "" {
				p.send("Subject: x\r\n\r\n" + strings.Repeat("MAIL FROM:<evil@x>\r\n", 3) + "\r\n..\r\n.\r\n")
				p.expect(next)
			}
			p.command("RSET", "250 ")
			p.envelope().send("BDAT 84 LAST\r\n" + strings.Repeat("0123456789ab\r\n", 6))
			p.expect(c.chunk)
			p.command("NOOP", "250 ")
			p.command("MAIL FROM:<next@out.example>", "250 ")
		})
	}
}

// TestEarlyMessageBehindRefusal sends the message without waiting for 354, to a session
// that refuses it: its lines must not become commands.
func TestEarlyMessageBehindRefusal(t *testing.T) {
	t.Parallel()
	called, arrived := make(chan struct{}), make(chan struct{})
	r := &recorder{data: func(_ context.Context, _ Body, n int) []error {
		close(called)
		<-arrived
		return answers(n, mail.NewReply(452, 4, 3, 1, "No room"))
	}}
	_, addr := startServer(t, testOptions(), r)
	p := dial(t, addr).hello().envelope()
	p.send("DATA\r\n")
	<-called
	p.send(evil)
	eventually(t, "the message is at the server", p.sentHasArrived)
	close(arrived)
	p.expect("452 ")
	p.expect("554 5.5.0")
	p.expectEnd()
	if len(r.clients) != 1 {
		t.Errorf("%d transactions were begun, want 1", len(r.clients))
	}
}

// TestLMTPAnswersForEach has a session that gives each recipient its own answer.
func TestLMTPAnswersForEach(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Protocol, o.Limits.MessageBytes = ProtocolLMTP, 1000
	r := &recorder{data: func(_ context.Context, b Body, n int) []error {
		_, err := io.Copy(io.Discard, b)
		errs := answers(n, err)
		errs[1] = mail.NewReply(452, 4, 2, 2, "Mailbox full")
		return errs
	}}
	_, addr := startServer(t, o, r)
	p := dial(t, addr)
	p.expect("220 mx.example LMTP")
	p.command("LHLO x", "250")
	begin := func() {
		p.command("MAIL FROM:<a@out.example>", "250 ")
		for _, to := range []string{"b", "c", "no", "b"} {
			p.command("RCPT TO:<"+to+"@in.example>", map[bool]string{true: "550 ", false: "250 "}[to == "no"])
		}
	}
	begin()
	p.command("DATA", "354 ")
	p.command("x\r\n.", "250 2.0.0")
	p.expect("452 4.2.2")
	p.expect("250 2.0.0")
	begin()
	p.command("DATA", "354 ")
	p.command(strings.Repeat("x", 1001)+"\r\n.", "552 ")
	p.expect("552 ")
	p.expect("552 ")
	begin()
	p.send("BDAT 2000\r\n" + strings.Repeat("x", 2000))
	p.expect("552 ") // one: this is not the last chunk
	p.command("NOOP", "250 ")
}

// TestBareLineEndsRefused is the setting that refuses instead of repairing.
func TestBareLineEndsRefused(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.BareLineEnds = BareRefuse
	r := &recorder{}
	_, addr := startServer(t, o, r)
	p := dial(t, addr).hello()
	for _, sequence := range []string{"\n.\n", "\r.\r\n", "\n.\r\n", "\r\n.\n", "\r\n.\r", "\r\r\n", "\n"} {
		p.envelope().command("DATA", "354 ")
		p.send("a" + sequence + evil)
		p.expect("550 5.6.0")
		p.envelope().send("BDAT " + fmt.Sprint(2+len(sequence)) + " LAST\r\nab" + sequence)
		p.expect("550 5.6.0")
	}
	p.envelope().command("DATA", "354 ")
	p.command("clean\r\n.", "250 ")
	if len(r.messages) != 1 || len(r.clients) != 15 {
		t.Errorf("%d messages in %d transactions, want 1 in 15", len(r.messages), len(r.clients))
	}
}

// TestFidelity sends 50 MB of lines of all lengths and all bytes, by DATA and by BDAT,
// and compares digests.
func TestFidelity(t *testing.T) {
	t.Parallel()
	size := 50 << 20
	if raceDetector {
		size = 5 << 20 // it makes this tenfold slow
	}
	var bytes []byte // all but CR and LF, several times
	for c := range 6000 {
		if c := byte(c * 7); c != '\r' && c != '\n' {
			bytes = append(bytes, c)
		}
	}
	var content []byte
	for i := 0; len(content) < size; i++ {
		content = append(content, bytes[:i%5000]...)
		content = append(content, "\r\n"...)
		if i%3 == 0 {
			content = append(content, '.')
		}
	}
	content = append(content, "\r\n"...)
	sums := make(chan [32]byte, 2)
	r := &recorder{data: func(_ context.Context, b Body, n int) []error {
		h := sha256.New()
		_, err := io.Copy(h, b)
		sums <- [32]byte(h.Sum(nil))
		if b.Repaired() != 0 {
			err = errors.New("something was repaired")
		}
		return answers(n, err)
	}}
	_, addr := startServer(t, testOptions(), r)
	p := dial(t, addr).hello().envelope()
	if err := p.conn.SetDeadline(time.Now().Add(6 * patience)); err != nil {
		t.Fatal(err)
	}
	p.command("DATA", "354 ")
	stuffed := strings.ReplaceAll(string(content), "\r\n.", "\r\n..")
	p.command(stuffed+".", "250 ")
	p.envelope().send(fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", 1<<20, content[:1<<20], len(content)-1<<20, content[1<<20:]))
	p.expect("250 ")
	p.expect("250 ")
	for range 2 {
		if want := sha256.Sum256(content); <-sums != want {
			t.Error("content is not what was sent")
		}
	}
}

// TestPanicEndsOneConnection has a session that panics beside one that doesn't.
func TestPanicEndsOneConnection(t *testing.T) {
	t.Parallel()
	var l logBuffer
	o := testOptions()
	o.Logger = l.logger()
	r := &recorder{}
	_, addr := startServer(t, o, r)
	other := dial(t, addr).hello()
	p := dial(t, addr).hello()
	p.send("MAIL FROM:<panic@out.example>\r\n")
	p.expectEnd()
	other.envelope()
	eventually(t, "the session is closed", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.closed == 1
	})
	eventually(t, "the panic is in the log", func() bool { return strings.Contains(l.String(), "connection panicked") })
}

// TestLog wants one line for each connection and violation, with nothing in it that a
// peer could break it with, and no word of what he said behind a verb.
func TestLog(t *testing.T) {
	t.Parallel()
	var l logBuffer
	o := testOptions()
	o.Logger = l.logger()
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr)
	p.expect("220 ")
	p.command("EHLO ${jndi:ldap}%s%n\u009b", "250")
	p.command("AUTH PLAIN c2VjcmV0", "502 ")
	p.command("secret words of a message", "500 ")
	p.command("QUIT", "221 ")
	p.expectEnd()
	eventually(t, "the connection's end is in the log", func() bool { return strings.Contains(l.String(), "connection ended") })
	lines := strings.Split(strings.TrimSpace(l.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines in the log, want 3:\n%s", len(lines), l.String())
	}
	for _, line := range lines {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if fields["session"] == "" || fields["listener"] != "test" || fields["peer"] == "" {
			t.Errorf("line doesn't say who: %s", line)
		}
		if strings.Contains(line, "c2VjcmV0") || strings.Contains(line, "secret") {
			t.Errorf("line shows what was said: %s", line)
		}
	}
}
