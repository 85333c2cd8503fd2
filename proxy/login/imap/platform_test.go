package imap

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"mailcutover/proxy/login"
)

// TestAuthenticate plays platforms:
//
//	target [starttls] [implicit] [id] [lapsed] [plain=no]   the endpoint, and our right to log in there
//	login NAME SECRET [xoauth2|oauthbearer] [master=USER] [separator=X]
//	clientid BYTES               what the client said in ID
//	--
//	S: line                      sent, with CRLF
//	S> bytes                     sent
//	tls                          the platform's part of a handshake
//	close                        the platform ends the connection
//	C: line                      what came of it
//	asked n                      how often the decision was looked at again
//	result ...                   what Authenticate returned
//
// When the transcript is over the platform says that it sends no more.
func TestAuthenticate(t *testing.T) {
	transcripts(t, "platform", []string{"C:", "asked", "result"}, func(tr *transcript) {
		server, client := certificates(tr.t)
		here, there := pair(tr.t)
		options := login.LegOptions{Net: there, Answer: time.Minute}
		options.Target = login.Target{Platform: "exchange", Host: "ex:143", Client: login.ClientInfo{
			Addr: "192.0.2.7", Port: "40000", Local: "192.0.2.1", LocalPort: "993", Session: "s-1",
		}}
		a := &login.Attempt{}
		lapsed := platformSettings(tr, &options, a)
		options.TLS = func(nc net.Conn) *tls.Conn { return tls.Client(nc, client) }
		asked := 0
		a.SetLast(func() error {
			asked++
			if lapsed {
				return errors.New("lapsed")
			}
			return nil
		})
		var result []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer there.Close()
			l := login.NewLeg(options)
			if options.Target.TLS == login.LegImplicit {
				c := tls.Client(there, client)
				if err := c.Handshake(); err != nil {
					result = []string{"result " + err.Error()}
					return
				}
				options.Net, options.Encrypted = c, true
				l = login.NewLeg(options)
			}
			w, err := Dialogue{}.Authenticate(l, a)
			rejection := (*login.Rejection)(nil)
			switch {
			case err == nil:
				result = []string{fmt.Sprintf("result before=%q", w.Before), fmt.Sprintf("result final=%q rest=%q", w.Final, l.Rest())}
			case errors.As(err, &rejection):
				result = []string{fmt.Sprintf("result rejection %q", rejection.Answer)}
			default:
				result = []string{"result error " + err.Error()}
			}
			// What a client learns of it, if nothing comes between.
			if err != nil && rejection == nil {
				result = append(result, fmt.Sprintf("result answer %q", reply("a", &login.Refusal{Cause: login.CausePlatform, Err: err})))
			}
		}()
		defer func() { _ = here.Close(); <-done }()

		e := &end{tr: tr, nc: here, r: bufio.NewReader(here), prefix: "C:"}
		if options.Target.TLS == login.LegImplicit {
			e.upgrade(tls.Server(e.nc, server))
		}
		for word, rest, ok := tr.next(); ok; word, rest, ok = tr.next() {
			switch word {
			case "S:":
				e.send(bytesOf(tr.t, rest) + "\r\n")
			case "S>":
				e.send(bytesOf(tr.t, rest))
			case "tls":
				e.upgrade(tls.Server(e.nc, server))
			case "close":
				_ = e.nc.Close()
			default:
				tr.t.Fatalf("unknown: %s", word)
			}
			e.heard()
		}
		if c, ok := e.nc.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
		e.over()
		<-done
		tr.output(fmt.Sprintf("asked %d", asked))
		for _, r := range result {
			tr.output(r)
		}
	})
}

// platformSettings reads a transcript up to its line "--".
func platformSettings(tr *transcript, o *login.LegOptions, a *login.Attempt) (lapsed bool) {
	a.Mechanism = login.MechanismPassword
	for {
		word, rest, ok := tr.next()
		words := strings.Fields(rest)
		switch {
		case !ok:
			tr.t.Fatal("no line --")
		case word == "--":
			return lapsed
		case word == "clientid":
			a.ID = []byte(bytesOf(tr.t, rest))
		case word == "target":
			for _, setting := range words {
				switch setting {
				case "starttls":
					o.Target.TLS = login.LegStartTLS
				case "implicit":
					o.Target.TLS = login.LegImplicit
				case "id":
					o.Target.Identity = login.IdentityID
				case "lapsed":
					lapsed = true
				case "plain=no":
					o.MaySend = func(encrypted bool) error {
						if !encrypted {
							return errors.New("not encrypted")
						}
						return nil
					}
				default:
					tr.t.Fatalf("unknown: %s", setting)
				}
			}
		case word == "login":
			a.Name, a.Login, a.Secret = "somebody", bytesOf(tr.t, words[0]), []byte(bytesOf(tr.t, words[1]))
			for _, setting := range words[2:] {
				key, value, _ := strings.Cut(setting, "=")
				switch key {
				case "xoauth2":
					a.Mechanism = login.MechanismXOAuth2
				case "oauthbearer":
					a.Mechanism = login.MechanismOAuthBearer
				case "master":
					a.Master = &login.Master{User: value, Password: "master's"}
				case "separator":
					a.Master.Separator = value
				default:
					tr.t.Fatalf("unknown: %s", setting)
				}
			}
		default:
			tr.t.Fatalf("unknown: %s", word)
		}
	}
}
