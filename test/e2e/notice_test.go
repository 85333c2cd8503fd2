package e2e

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// notice is a delivery status notification as a mail program reads it: RFC 3464, in the
// multipart/report of RFC 6522.
type notice struct {
	header     mail.Header
	text       string
	message    textproto.MIMEHeader   // per-message fields
	recipients []textproto.MIMEHeader // per-recipient fields
	kind       string                 // media type of the third part
	original   []byte
}

// readNotice reads what a platform got, without our Received lines.
func readNotice(t testing.TB, raw []byte) (n notice) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("notice: %v\n%s", err, raw)
	}
	n.header = m.Header
	media, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || media != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("notice: %s %v, %v", media, params, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for i := 0; ; i++ {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			if i != 3 {
				t.Fatalf("notice: %d parts\n%s", i, raw)
			}
			return n
		}
		if err != nil {
			t.Fatalf("notice: %v\n%s", err, raw)
		}
		content, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		media, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		switch {
		case err != nil:
			t.Fatalf("notice: part %d: %v", i, err)
		case i == 0 && media == "text/plain":
			n.text = string(content)
		case i == 1 && media == "message/delivery-status":
			for group := range strings.SplitSeq(strings.TrimRight(string(content), "\r\n"), "\r\n\r\n") {
				h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(group + "\r\n\r\n"))).ReadMIMEHeader()
				if err != nil {
					t.Fatalf("notice: %v in %q", err, group)
				}
				if n.message == nil {
					n.message = h
				} else {
					n.recipients = append(n.recipients, h)
				}
			}
		case i == 2:
			n.kind, n.original = media, content
		default:
			t.Fatalf("notice: part %d is %s", i, media)
		}
	}
}

// relayed is a node with an agency on a platform by LMTP that refuses bad@ for good at
// the dot, and a relay for notices.
func relayed(t *testing.T) (n *node, ox, relay *platformtest.Platform) {
	t.Helper()
	ox = startPlatform(t, platformtest.Options{LMTP: true, Script: func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot && strings.HasPrefix(c.Rcpt, "bad@") {
			return platformtest.Reaction{Reply: "554 5.7.1 Not what this mailbox takes"}
		}
		return platformtest.Reaction{}
	}})
	relay = startPlatform(t, platformtest.Options{})
	other := startPlatform(t, platformtest.Options{})
	n = startNode(t, setup{
		platforms: []platform{{id: "ox", addr: ox.Addr(), lmtp: true}, {id: "relay", addr: relay.Addr()}, {id: "exchange", addr: other.Addr()}},
		more:      "notices: {platform: relay, contact: \"Helpdesk, 1234\"}\n",
	})
	n.addAgencyOn("health", "ox", "exchange", "good", "bad")
	return n, ox, relay
}

// One of two recipients is refused for good by the platform, after the other's message has
// arrived: the sender, who was told 250, gets a notice, about that one.
func TestNoticeOfRefusal(t *testing.T) {
	t.Parallel()
	n, ox, relay := relayed(t)
	for _, c := range []struct {
		name, mailParams, rcptParams string
		kind                         string // of what is returned; empty: no notice
	}{
		{"as it comes", "", "", "text/rfc822-headers"},
		{"with what RFC 3461 asks for", " RET=FULL ENVID=QQ314159", " NOTIFY=FAILURE,DELAY ORCPT=rfc822;Bad@Health.example", "message/rfc822"},
		{"not wanted", "", " NOTIFY=NEVER", ""},
	} {
		arrived, told := len(ox.Stored()), len(relay.Stored())
		w := mustDial(t, n.smtp, "EHLO")
		w.want(t, "MAIL FROM:<sender@out.example>"+c.mailParams, "250 ")
		w.want(t, "RCPT TO:<good@health.example>", "250 ")
		w.want(t, "RCPT TO:<bad@health.example>"+c.rcptParams, "250 ")
		content := withID(7)
		if got := w.message(t, content); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("%s: %s", c.name, got)
		}
		w.conn.Close()
		if got := len(ox.Stored()); got != arrived+1 {
			t.Errorf("%s: good@ has %d messages, want one more than %d", c.name, got, arrived)
		}
		if c.kind == "" {
			waitFor(t, "the end of what nobody is told", func() bool { return n.metric(t, "mailcutover_spool_messages") == 0 })
			if got := relay.Stored()[told:]; len(got) != 0 {
				t.Errorf("%s: %d notices", c.name, len(got))
			}
			continue
		}
		waitFor(t, "the notice", func() bool { return len(relay.Stored()) > told })
		tx := relay.Stored()[told]
		if tx.From != "" || len(tx.Rcpts) != 1 || tx.Rcpts[0].Path != "sender@out.example" || !slices.Contains(tx.Rcpts[0].Params, "NOTIFY=NEVER") {
			t.Errorf("%s: notice from %q to %+v", c.name, tx.From, tx.Rcpts)
		}
		got := readNotice(t, tx.Body())
		for name, want := range map[string]string{"To": "<sender@out.example>", "Auto-Submitted": "auto-replied"} {
			if v := got.header.Get(name); v != want {
				t.Errorf("%s: %s: %q, want %q", c.name, name, v, want)
			}
		}
		if from, err := mail.ParseAddress(got.header.Get("From")); err != nil || from.Address == "sender@out.example" {
			t.Errorf("%s: From: %q, %v", c.name, got.header.Get("From"), err)
		}
		if v := got.message.Get("Reporting-Mta"); v != "dns; node.example.org" {
			t.Errorf("%s: Reporting-MTA: %q", c.name, v)
		}
		if _, err := mail.ParseDate(got.message.Get("Arrival-Date")); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(got.recipients) != 1 {
			t.Fatalf("%s: about %v", c.name, got.recipients)
		}
		fields := map[string]string{
			"Final-Recipient": "rfc822; bad@health.example", "Action": "failed", "Status": "5.7.1",
			"Diagnostic-Code": "smtp; 554 5.7.1 Not what this mailbox takes",
		}
		envid := ""
		if c.mailParams != "" {
			fields["Original-Recipient"], envid = "rfc822; Bad@Health.example", "QQ314159"
		}
		for name, want := range fields {
			if v := got.recipients[0].Get(name); !sameField(v, want) {
				t.Errorf("%s: %s: %q, want %q", c.name, name, v, want)
			}
		}
		if v := got.message.Get("Original-Envelope-Id"); v != envid {
			t.Errorf("%s: Original-Envelope-Id: %q, want %q", c.name, v, envid)
		}
		if !strings.Contains(got.text, "bad@health.example") || strings.Contains(got.text, "good@health.example") {
			t.Errorf("%s: text:\n%s", c.name, got.text)
		}
		header, body, _ := strings.Cut(content, "\r\n\r\n")
		if got.kind != c.kind || !bytes.Contains(got.original, []byte(header)) || bytes.Contains(got.original, []byte(body)) != (c.kind == "message/rfc822") {
			t.Errorf("%s: returned as %s:\n%s", c.name, got.kind, got.original)
		}
	}
	n.Stop()
	if left := n.inSpool(t); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
}

// sameField compares fields of a notice, whose type may be followed by a blank or not.
func sameField(a, b string) bool {
	return strings.Replace(a, "; ", ";", 1) == strings.Replace(b, "; ", ";", 1)
}

// What was sent with the null sender, notices of others among it, is set aside for a human
// instead: nobody is told.
func TestNoNoticeToNullSender(t *testing.T) {
	t.Parallel()
	n, ox, relay := relayed(t)
	w := mustDial(t, n.smtp, "EHLO")
	w.want(t, "MAIL FROM:<>", "250 ")
	w.want(t, "RCPT TO:<good@health.example>", "250 ")
	w.want(t, "RCPT TO:<bad@health.example>", "250 ")
	if got := w.message(t, withID(1)); !strings.HasPrefix(got, "250 ") {
		t.Fatal(got)
	}
	waitFor(t, "an alarm", func() bool {
		alarms, err := n.api.Alarms(t.Context())
		return err == nil && slices.ContainsFunc(alarms, func(a alarm.Alarm) bool { return a.Key == "spool-quarantine" })
	})
	n.Stop()
	if got := len(relay.Stored()); got != 0 {
		t.Errorf("%d notices", got)
	}
	if got := ox.Stored(); len(got) != 1 || !got[0].StoredFor("good@health.example") || got[0].StoredFor("bad@health.example") {
		t.Errorf("ox has %+v", got)
	}
	if left := n.inSpool(t); len(left) != 1 || left["quarantined"] != 1 {
		t.Errorf("left in the spool: %v, want one quarantined", left)
	}
}

// A real relay takes notices and brings them to the sender's mailbox.
func TestNoticeThroughPostfix(t *testing.T) {
	t.Parallel()
	peers.Need(t, "postfix")
	ox := startPlatform(t, platformtest.Options{LMTP: true, Script: platformtest.On("RCPT", platformtest.Reaction{Reply: "550 5.1.1 No such mailbox"})})
	other := startPlatform(t, platformtest.Options{})
	relay := peers.StartPostfixPlatform(t, peers.PostfixPlatformOptions{})
	n := startNode(t, setup{
		platforms: []platform{{id: "ox", addr: ox.Addr(), lmtp: true}, {id: "relay", addr: relay.Addr}, {id: "exchange", addr: other.Addr()}},
		more:      "notices: {platform: relay}\n",
	})
	n.addAgencyOn("health", "exchange", "ox", "good")
	n.addAgencyOn("roads", "ox", "exchange", "gone")
	// The second recipient goes by the spool, so that its platform's no comes after our 250.
	w := mustDial(t, n.smtp, "EHLO")
	w.envelope(t, "good@health.example", "gone@roads.example")
	if got := w.message(t, withID(1)); !strings.HasPrefix(got, "250 ") {
		t.Fatal(got)
	}
	waitFor(t, "the notice in the sender's mailbox", func() bool { return len(relay.All(t)) > 0 })
	n.Stop()
	stored := relay.All(t)
	if len(stored) != 1 || stored[0].Mailbox != "sender@out.example" {
		t.Fatalf("%d messages, the first one for %s", len(stored), stored[0].Mailbox)
	}
	got := readNotice(t, bytes.ReplaceAll(stored[0].Raw, []byte("\n"), []byte("\r\n")))
	if len(got.recipients) != 1 || got.recipients[0].Get("Status") != "5.1.1" || got.recipients[0].Get("Action") != "failed" {
		t.Errorf("%+v", got.recipients)
	}
	if d, err := mail.ParseDate(got.header.Get("Date")); err != nil || time.Since(d) > time.Hour {
		t.Errorf("Date: %q, %v", got.header.Get("Date"), err)
	}
}
