package logintest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"mailcutover/proxy/login"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// toy is a dialogue of few words: "LOGIN name secret", "TLS", "QUIT".
type toy struct{}

func (toy) Protocol() string { return "toy" }

func (toy) Serve(c *login.Conn) (*login.Session, error) {
	c.Print("hello from ", c.Front().Hostname, "\r\n")
	for {
		line, err := c.ReadLine(c.Front().LineBytes)
		if err != nil {
			return nil, err
		}
		words := strings.Fields(string(line))
		switch {
		case len(words) == 1 && words[0] == "TLS":
			c.Print("go on\r\n")
			if err := c.StartTLS(); err != nil {
				return nil, err
			}
		case len(words) == 3 && words[0] == "LOGIN":
			s, w, err := c.Login(&login.Attempt{Name: words[1], Mechanism: login.MechanismPassword, Secret: []byte(words[2])})
			var refused *login.Refusal
			if errors.As(err, &refused) {
				c.Print("no: ", refused.Cause.String(), "\r\n")
				continue
			}
			if err != nil {
				return nil, err
			}
			c.Print("yes ", string(w.Final), "\r\n")
			return s, c.Flush()
		default:
			c.Print("bye\r\n")
			return nil, login.ErrQuit
		}
	}
}

func (toy) Authenticate(l *login.Leg, a *login.Attempt) (login.Welcome, error) {
	if _, err := l.ReadLine(100); err != nil {
		return login.Welcome{}, err
	}
	if l.Target().TLS == login.LegStartTLS {
		l.Print("TLS\r\n")
		if _, err := l.ReadLine(100); err != nil {
			return login.Welcome{}, err
		}
		if err := l.StartTLS(); err != nil {
			return login.Welcome{}, err
		}
	}
	if err := l.MaySend(); err != nil {
		return login.Welcome{}, err
	}
	if err := a.Last(); err != nil {
		return login.Welcome{}, err
	}
	l.Print("LOGIN ", a.Login, " ", string(a.Secret), "\r\n")
	line, err := l.ReadLine(100)
	if err != nil {
		return login.Welcome{}, err
	}
	if !bytes.HasPrefix(line, []byte("yes")) {
		return login.Welcome{}, &login.Rejection{Answer: bytes.Clone(line)}
	}
	return login.Welcome{Final: bytes.Clone(line)}, nil
}

func (toy) Farewell(login.Cause, bool) []byte { return nil }
func (toy) Tracker() login.Tracker            { return nil }
func (toy) Ending() login.Ending              { return login.Ending{} }

func TestServe(t *testing.T) {
	s := Serve(t, toy{}, ServeOptions{
		Front: login.Front{TLS: true},
		Login: func(a *login.Attempt) (login.Welcome, error) {
			if a.Name == "anna" {
				return login.Welcome{Final: []byte("anna")}, nil
			}
			return login.Welcome{}, &login.Refusal{Cause: login.CauseWrong}
		},
	})
	s.Talk("S: hello from mx.example", "C: TLS", "S: go on")
	s.StartTLS()
	s.Talk("C: LOGIN bert x", "S: no: wrong")
	s.Send("LOGIN anna secret\r\nmore")
	s.Talk("S: yes anna")
	session, rest, err := s.Result()
	if session == nil || err != nil || string(rest) != "more" {
		t.Errorf("got %v, %q, %v", session, rest, err)
	}
	if a := s.Attempts(); len(a) != 2 || string(a[1].Secret) != "secret" || !s.Wiped() {
		t.Errorf("attempts %v, wiped %v", a, s.Wiped())
	}
}

func TestServeInjected(t *testing.T) {
	s := Serve(t, toy{}, ServeOptions{Front: login.Front{TLS: true}})
	s.Talk("S: hello...")
	s.Send("TLS\r\nLOGIN anna secret\r\n")
	if _, _, err := s.Result(); !errors.Is(err, login.ErrInjected) {
		t.Errorf("got %v, want %v", err, login.ErrInjected)
	}
	if len(s.Attempts()) != 0 {
		t.Error("what was injected was used")
	}
}

func TestAuthenticate(t *testing.T) {
	for _, mode := range []login.LegTLS{login.LegPlain, login.LegStartTLS, login.LegImplicit} {
		r := Authenticate(t, toy{}, AuthenticateOptions{Target: login.Target{TLS: mode}},
			&login.Attempt{Login: "AMT\\anna", Secret: []byte("secret")}, func(p *Peer) {
				p.Talk("S: hello")
				if mode == login.LegStartTLS {
					p.Talk("C: TLS", "S: go on")
					p.StartTLS()
				}
				p.Talk("C: LOGIN AMT\\anna secret")
				p.Send("yes\r\nmore")
			})
		if r.Err != nil || string(r.Welcome.Final) != "yes" || r.Asked != 1 {
			t.Errorf("%v: got %+v", mode, r)
		}
	}
	r := Authenticate(t, toy{}, AuthenticateOptions{MaySend: func(bool) error { return ErrPlain }}, &login.Attempt{},
		func(p *Peer) { p.Talk("S: hello"); p.WantEnd() })
	if !errors.Is(r.Err, ErrPlain) || r.Asked != 0 {
		t.Errorf("got %+v, want %v", r, ErrPlain)
	}
}
