package relay

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"mailcutover/mail"
)

// What a platform says of us, of our session or of itself is never final for a sender; what it
// says of the sender, the recipient or the content is passed on.
func TestWhatARefusalIsAbout(t *testing.T) {
	const message, us = false, true
	for _, c := range []struct {
		verb, answer string
		ours         bool
	}{
		// Us.
		{"MAIL", "530 5.7.57 Client not authenticated to send mail", us},
		{"MAIL", "530 5.7.0 Must issue a STARTTLS command first", us},
		{"MAIL", "530 5.7.1 Client was not authenticated", us},
		{"MAIL", "503 5.5.1 Bad sequence", us},
		{"MAIL", "503 5.5.2 Send hello first", us},
		{"MAIL", "500 5.5.1 Command unrecognized", us},
		{"MAIL", "500 5.3.3 Unrecognized command", us},
		{"MAIL", "501 5.5.4 Invalid domain name", us},
		{"MAIL", "501 Invalid domain name", us},
		{"MAIL", "554 5.3.2 System not accepting network messages", us},
		{"MAIL", "554 5.3.5 System incorrectly configured", us},
		{"MAIL", "552 5.3.1 Mail system full", us},
		{"MAIL", "535 5.7.8 Authentication credentials invalid", us},
		{"MAIL", "538 5.7.11 Encryption required", us},
		{"MAIL", "521 5.3.2 Host accepts no mail", us},
		{"MAIL", "555 5.5.4 Unsupported option: BODY=8BITMIME", us},
		{"MAIL", "550 5.7.60 Client does not have permissions to send as this sender", us},
		{"MAIL", "550 5.7.1 Client does not have permissions to send as this sender", us},
		{"MAIL", "554 5.7.1 <mx.example[192.0.2.1]>: Client host rejected: Access denied", us},
		{"MAIL", "550 5.7.23 SPF check failed", us},
		{"MAIL", "550 no", us},
		{"MAIL", "554 no", us},
		{"RCPT", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", us},
		{"RCPT", "550 5.7.1 Unable to relay", us},
		{"RCPT", "554 5.7.1 <b@x.example>: Relay access denied", us},
		{"RCPT", "550 relay not permitted", us},
		{"RCPT", "550 5.7.1 Recipient not authorized, your IP has been found on a block list", us},
		{"RCPT", "550 5.7.64 TenantAttribution; Relay Access Denied", us},
		{"RCPT", "530 5.7.0 Must issue a STARTTLS command first", us},
		{"RCPT", "503 5.5.2 Need mail command", us},
		{"RCPT", "550 5.1.2 Host unknown", us},
		{"RCPT", "501 5.1.3 Invalid address", us},
		{"RCPT", "550 5.4.1 Recipient address rejected: Access denied", us},
		{"RCPT", "550 5.5.3 Too many recipients", us},
		{"RCPT", "556 5.1.10 Domain takes no mail", us},
		{"RCPT", "554 what", us},
		{"DATA", "503 5.5.1 RCPT first", us},
		{"DATA", "554 5.5.1 No valid recipients", us},
		{"DATA", "550 no", us},
		{".", "554 5.3.0 Store driver", us},
		{".", "554 5.4.14 Hop count exceeded - possible mail loop", us},
		{".", "500 5.5.2 Line too long", us},
		{".", "550 5.7.25 Reverse DNS validation failed", us},
		{"body", "554 5.3.2 Shutting down", us},

		// The message.
		{"MAIL", "501 5.1.7 Invalid address", message},
		{"MAIL", "550 5.1.8 Sender's domain does not exist", message},
		{"MAIL", "554 5.1.0 Sender denied", message},
		{"MAIL", "550 5.7.1 <a@out.example>: Sender address rejected: blocked", message},
		{"MAIL", "552 5.3.4 Message size exceeds fixed maximum message size", message},
		{"MAIL", "552 too big", message},
		{"MAIL", "553 not allowed", message},
		{"RCPT", "550 5.1.1 User unknown", message},
		{"RCPT", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", message},
		{"RCPT", "550 5.2.1 Mailbox disabled", message},
		{"RCPT", "552 5.2.2 Quota exceeded", message},
		{"RCPT", "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", message},
		{"RCPT", "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", message},
		{"RCPT", "550 5.7.1 RESOLVER.RST.NotAuthorized; not authorized", message},
		{"RCPT", "550 no such user", message},
		{"DATA", "554 5.7.1 Command rejected", message},
		{".", "550 5.7.1 Message rejected as spam by Content Filtering", message},
		{".", "550 5.7.1 RESOLVER.RST.NotAuthorizedToGroup; not authorized", message},
		{".", "550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox; authentication required", message},
		{".", "554 5.6.0 Invalid message content", message},
		{".", "550 5.6.11 Bare linefeeds", message},
		{".", "552 5.3.4 Message size exceeds fixed maximum message size", message},
		{".", "554 no", message},
		{"body", "552 5.3.4 Message too big", message},

		// What is temporary anyway is left as it is.
		{"MAIL", "454 4.7.0 Temporary authentication failure", message},
		{"RCPT", "451 4.7.1 Greylisted", message},
		{".", "432 4.3.2 STOREDRV; recipient thread limit exceeded", message},
	} {
		t.Run(c.verb+"/"+c.answer, func(t *testing.T) {
			peer := startPeer(t, &peer{answer: func(s *session, verb, _ string) string {
				if verb == "body" && c.verb == "body" {
					s.say(c.answer)
					return hang
				}
				return map[string]string{c.verb: c.answer}[verb]
			}})
			p := newPool(t, endpoint(peer.addr), Options{})
			var err error
			if c.verb == "body" {
				err = slowBody(testContext(t), t, p, peer)
			} else {
				err = deliver(testContext(t), t, p, "x\r\n", "b@x.example").err()
			}
			var pr *PlatformReply
			if !errors.As(err, &pr) || fmt.Sprint(pr.Reply.Code) != c.answer[:3] || pr.Ours != c.ours {
				t.Fatalf("got %+v: %v", pr, err)
			}
			if errors.Is(err, ErrNeedsOperator) != c.ours {
				t.Errorf("worth an alarm: %t, want %t: %v", !c.ours, c.ours, err)
			}
			r := mail.AsReply(err)
			if c.ours && (r.Code != 451 || r.EnhancedCode != [3]int{4, 3, 5} || r.Message == pr.Reply.Message) {
				t.Errorf("passed on as %v", r)
			}
			if !c.ours && r.Code != pr.Reply.Code {
				t.Errorf("passed on as %v", r)
			}
		})
	}
}

// "550 5.7.1" of a group is about its sender where the platform takes mail from us, and
// doesn't speak of us.
func TestGroupThatDoesNotTakeThisSender(t *testing.T) {
	for _, c := range []struct {
		answer       string
		group, known bool // a recipient was taken on the connection before
		ours         bool
	}{
		{"550 5.7.1 Not authorized", true, true, false},
		{"550 5.7.1 Sender may not write to this list", true, true, false},
		{"550 5.7.1 Not authorized", true, false, true},
		{"550 5.7.1 Not authorized", false, true, true},
		{"550 5.7.1 Unable to relay", true, true, true},
		{"550 5.7.1 Client does not have permissions to send as this sender", true, true, true},
		{"550 5.7.1 Recipient not authorized, your IP has been found on a block list", true, true, true},
		{"554 5.7.1 Not authorized", true, true, true},
		{"550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", true, true, true},
	} {
		t.Run(fmt.Sprintf("%s/group=%t/known=%t", c.answer, c.group, c.known), func(t *testing.T) {
			peer := startPeer(t, &peer{answer: func(_ *session, verb, line string) string {
				if verb == "RCPT" && strings.Contains(line, "all@") {
					return c.answer
				}
				return ""
			}})
			p := newPool(t, endpoint(peer.addr), Options{})
			ctx := testContext(t)
			if c.known {
				if err := deliver(ctx, t, p, "x\r\n", "b@x.example").err(); err != nil {
					t.Fatal(err)
				}
			}
			tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Abort()
			err = tx.Rcpts(ctx, []Recipient{{To: path(t, "all@x.example"), Group: c.group}})[0]
			var r *PlatformReply
			if !errors.As(err, &r) || r.Ours != c.ours || mail.IsPermanent(mail.AsReply(err)) == c.ours {
				t.Errorf("ours is not %t: %v", c.ours, err)
			}
		})
	}
}

// What a mailbox doesn't take from a sender is no fault of the message: another platform
// may have another rule.
func TestRestrictionIsNotContent(t *testing.T) {
	for _, c := range []struct {
		reply   *mail.Reply
		content bool
	}{
		{mail.NewReply(550, 5, 7, 1, "Message rejected as spam by Content Filtering"), true},
		{mail.NewReply(550, 5, 7, 1, "RESOLVER.RST.NotAuthorized; not authorized"), false},
		{mail.NewReply(550, 5, 7, 2, "Not for you"), false},
		{mail.NewReply(550, 5, 7, 134, "RESOLVER.RST.SenderNotAuthenticatedForMailbox"), false},
		{mail.NewReply(550, 5, 7, 509, "DMARC"), true},
	} {
		if got := IsContent(c.reply); got != c.content {
			t.Errorf("%v: %t", c.reply, got)
		}
	}
}
