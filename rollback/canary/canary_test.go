package canary

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ways are those of a node that takes mail and logins, and brings both to ox.
func ways() Ways {
	return Ways{
		Send: func(context.Context, string, []byte) error { return nil },
		Delivered: func(context.Context, string) (Delivery, bool, error) {
			return Delivery{Platform: "ox", Host: "ox1:24"}, true, nil
		},
		Login: func(_ context.Context, protocol, id string) (Visit, error) {
			v := Visit{Platform: "ox"}
			if protocol == IMAP && id != "" {
				v.Message = Sight{Looked: true, Found: true, Text: "it was deleted again"}
			}
			return v, nil
		},
	}
}

// by returns a login that differs for one protocol.
func by(protocol string, v Visit, err error) func(*Trial, *Ways) {
	return func(_ *Trial, w *Ways) {
		well := w.Login
		w.Login = func(ctx context.Context, p, id string) (Visit, error) {
			if p == protocol {
				return v, err
			}
			return well(ctx, p, id)
		}
	}
}

// parts says what was tried, and with + what was well.
func parts(r *Result) (text string) {
	for _, p := range r.Parts {
		mark := "-"
		if p.OK {
			mark = "+"
		}
		text += mark + p.Name
	}
	return text
}

// What is wrong with mail or logins is found, and said.
func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		change      func(*Trial, *Ways)
		parts       string
		mail, login string
	}{
		"all is well":  {func(*Trial, *Ways) {}, "+mail+pop3+imap+mailbox", "in its mailbox; it was deleted again", "by pop3 at ox; canary was logged in by imap at ox"},
		"only mail":    {func(t *Trial, _ *Ways) { t.Login = "" }, "+mail", "is on ox, ox1:24, after", ""},
		"only a login": {func(t *Trial, _ *Ways) { t.Address = "" }, "+pop3+imap", "", "canary was logged in by imap at ox"},
		"no IMAP":      {func(t *Trial, _ *Ways) { t.Protocols = []string{"pop3"} }, "+mail+pop3", "is on ox", "by pop3 at ox"},
		"no protocol":  {func(t *Trial, _ *Ways) { t.Protocols = nil }, "+mail", "is on ox", "there is no protocol"},
		"mail is seen on the platform itself": {func(t *Trial, w *Ways) {
			t.Login = ""
			w.Look = func(context.Context, string) (Sight, error) { return Sight{Looked: true, Found: true}, nil }
		}, "+mail+mailbox", "and in its mailbox", ""},
		"mail is not seen there": {func(t *Trial, w *Ways) {
			t.Login = ""
			w.Look = func(context.Context, string) (Sight, error) { return Sight{Looked: true}, nil }
		}, "+mail-mailbox", "but not in the INBOX of its mailbox on ox", ""},
		"nobody can look there": {func(t *Trial, w *Ways) {
			t.Protocols = []string{"pop3"}
			w.Look = func(context.Context, string) (Sight, error) { return Sight{}, errors.New("no such master") }
		}, "+mail+pop3-mailbox", "can't be seen: no such master", "by pop3 at ox"},
		"POP3 goes to the losing side": {by("pop3", Visit{Platform: "exchange"}, nil), "+mail-pop3+imap+mailbox", "is on ox", "by pop3 at platform exchange: want ox"},
		"POP3 has no greeting":         {by("pop3", Visit{}, errors.New("greeting: EOF")), "+mail-pop3+imap+mailbox", "is on ox", "login of canary by pop3: greeting: EOF"},
		"mail comes late": {func(_ *Trial, w *Ways) {
			looks, found := 0, w.Delivered
			w.Delivered = func(ctx context.Context, id string) (Delivery, bool, error) {
				if looks++; looks < 5 {
					return Delivery{}, false, nil
				}
				return found(ctx, id)
			}
		}, "+mail+pop3+imap+mailbox", "after 400ms", "by imap at ox"},
		"mail is put off": {func(_ *Trial, w *Ways) {
			w.Send = func(context.Context, string, []byte) error { return errors.New("451 4.3.0 later") }
		}, "-mail+pop3+imap", "451 4.3.0 later", "by imap at ox"},
		"mail goes to the losing side": {func(_ *Trial, w *Ways) {
			w.Delivered = func(context.Context, string) (Delivery, bool, error) {
				return Delivery{Platform: "exchange", Host: "ex1:25"}, true, nil
			}
		}, "-mail+pop3+imap", "went to platform exchange, ex1:25: want ox", "by imap at ox"},
		"mail is refused": {func(_ *Trial, w *Ways) {
			w.Delivered = func(context.Context, string) (Delivery, bool, error) {
				return Delivery{Platform: "ox", Host: "ox1:24", Refused: "550 5.1.1 who"}, true, nil
			}
		}, "-mail+pop3+imap", "550 5.1.1 who", "by imap at ox"},
		"mail never arrives": {func(_ *Trial, w *Ways) {
			w.Delivered = func(context.Context, string) (Delivery, bool, error) { return Delivery{}, false, nil }
		}, "-mail+pop3+imap", "is on no platform after 30s", "by imap at ox"},
		"the ledger can't be read": {func(_ *Trial, w *Ways) {
			w.Delivered = func(context.Context, string) (Delivery, bool, error) {
				return Delivery{}, false, errors.New("bad sector")
			}
		}, "-mail+pop3+imap", "bad sector", "by imap at ox"},
		"the login goes to the losing side": {by(IMAP, Visit{Platform: "exchange"}, nil), "+mail+pop3-imap", "is on ox", "by imap at platform exchange: want ox"},
		"the login is refused":              {by(IMAP, Visit{}, errors.New("answered NO")), "+mail+pop3-imap", "is on ox", "answered NO"},
		"nobody knows where the login went": {by(IMAP, Visit{}, nil), "+mail+pop3-imap", "is on ox", "isn't known"},
		"the message isn't in the mailbox": {by(IMAP, Visit{Platform: "ox", Message: Sight{Looked: true, Text: "in its folder Junk"}}, nil),
			"+mail+pop3+imap-mailbox", "but not in the INBOX of its mailbox on ox: in its folder Junk", "by imap at ox"},
		"the connection breaks in the search": {by(IMAP, Visit{Platform: "ox"}, errors.New("search: EOF")), "+mail+pop3-imap", "is on ox", "by imap at ox, but search: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				trial := Trial{Agency: "health", Platform: "ox", Node: "mx1.example", Address: "canary@health.example", Login: "canary", Protocols: []string{IMAP, "pop3"}}
				w := ways()
				sent, looked := "", ""
				c.change(&trial, &w)
				send, login := w.Send, w.Login
				w.Send = func(ctx context.Context, to string, text []byte) error {
					sent = string(text)
					return send(ctx, to, text)
				}
				w.Login = func(ctx context.Context, protocol, id string) (Visit, error) {
					if ctx.Err() != nil {
						return Visit{}, ctx.Err()
					}
					if protocol == IMAP {
						looked = id
					} else if id != "" {
						t.Errorf("by %s a message is looked for", protocol)
					}
					return login(ctx, protocol, id)
				}
				r := Run(ctx, trial, w)
				if ok := !strings.Contains(c.parts, "-") && name != "no protocol"; parts(&r) != c.parts || r.OK != ok || !strings.Contains(r.Mail, c.mail) || !strings.Contains(r.Login, c.login) || r.Agency != "health" || r.Ended.IsZero() {
					t.Errorf("got %+v", r)
				}
				if (c.mail == "") != (r.Mail == "") || (c.login == "") != (r.Login == "") {
					t.Errorf("got %+v, want %q and %q", r, c.mail, c.login)
				}
				if looked != "" && !strings.Contains(sent, "\r\nMessage-ID: "+looked+"\r\n") {
					t.Errorf("looked for %s, sent was\n%s", looked, sent)
				}
			})
		})
	}
}
