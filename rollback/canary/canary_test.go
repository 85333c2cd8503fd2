package canary

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/routing"
)

// ways are those of a node that takes mail and logins, and brings both to ox.
func ways() Ways {
	return Ways{
		Send: func(context.Context, string, []byte) error { return nil },
		Delivered: func(context.Context, string) (Delivery, bool, error) {
			return Delivery{Platform: "ox", Host: "ox1:24"}, true, nil
		},
		Login: func(context.Context, string) (routing.PlatformID, error) { return "ox", nil },
	}
}

// What is wrong with mail or logins is found, and said.
func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		change      func(*Trial, *Ways)
		ok          bool
		mail, login string
	}{
		"all is well":  {func(*Trial, *Ways) {}, true, "is on ox, ox1:24, after", "found the message"},
		"only mail":    {func(t *Trial, _ *Ways) { t.Login = "" }, true, "is on ox", ""},
		"only a login": {func(t *Trial, _ *Ways) { t.Address = "" }, true, "", "canary was logged in at ox"},
		"mail comes late": {func(_ *Trial, w *Ways) {
			looks, found := 0, w.Delivered
			w.Delivered = func(ctx context.Context, id string) (Delivery, bool, error) {
				if looks++; looks < 5 {
					return Delivery{}, false, nil
				}
				return found(ctx, id)
			}
		}, true, "after 400ms", "found"},
		"mail is put off": {func(_ *Trial, w *Ways) {
			w.Send = func(context.Context, string, []byte) error { return errors.New("451 4.3.0 later") }
		}, false, "451 4.3.0 later", "canary was logged in at ox"},
		"mail goes to the losing side": {func(_ *Trial, w *Ways) {
			w.Delivered = func(context.Context, string) (Delivery, bool, error) {
				return Delivery{Platform: "exchange", Host: "ex1:25"}, true, nil
			}
		}, false, "went to platform exchange, ex1:25: want ox", "logged in at ox"},
		"mail is refused": {func(_ *Trial, w *Ways) {
			w.Delivered = func(context.Context, string) (Delivery, bool, error) {
				return Delivery{Platform: "ox", Host: "ox1:24", Refused: "550 5.1.1 who"}, true, nil
			}
		}, false, "550 5.1.1 who", "logged in at ox"},
		"mail never arrives": {func(_ *Trial, w *Ways) {
			w.Delivered = func(context.Context, string) (Delivery, bool, error) { return Delivery{}, false, nil }
		}, false, "is on no platform after 30s", "canary was logged in at ox"},
		"the ledger can't be read": {func(_ *Trial, w *Ways) {
			w.Delivered = func(context.Context, string) (Delivery, bool, error) {
				return Delivery{}, false, errors.New("bad sector")
			}
		}, false, "bad sector", "logged in at ox"},
		"the login goes to the losing side": {func(_ *Trial, w *Ways) {
			w.Login = func(context.Context, string) (routing.PlatformID, error) { return "exchange", nil }
		}, false, "is on ox", "at platform exchange: want ox"},
		"the login is refused": {func(_ *Trial, w *Ways) {
			w.Login = func(context.Context, string) (routing.PlatformID, error) { return "", errors.New("answered NO") }
		}, false, "is on ox", "answered NO"},
		"nobody knows where the login went": {func(_ *Trial, w *Ways) {
			w.Login = func(context.Context, string) (routing.PlatformID, error) { return "", nil }
		}, false, "is on ox", "isn't known"},
		"the message isn't in the mailbox": {func(_ *Trial, w *Ways) {
			w.Login = func(context.Context, string) (routing.PlatformID, error) {
				return "ox", errors.New("the message isn't there")
			}
		}, false, "is on ox", "logged in at ox, but the message isn't there"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				trial := Trial{Agency: "health", Platform: "ox", Node: "mx1.example", Address: "canary@health.example", Login: "canary"}
				w := ways()
				sent, looked := "", ""
				c.change(&trial, &w)
				send, login := w.Send, w.Login
				w.Send = func(ctx context.Context, to string, text []byte) error {
					sent = string(text)
					return send(ctx, to, text)
				}
				w.Login = func(ctx context.Context, id string) (routing.PlatformID, error) {
					if ctx.Err() != nil {
						return "", ctx.Err()
					}
					looked = id
					return login(ctx, id)
				}
				r := Run(ctx, trial, w)
				if r.OK != c.ok || !strings.Contains(r.Mail, c.mail) || !strings.Contains(r.Login, c.login) || r.Agency != "health" || r.Ended.IsZero() {
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
