package page

import (
	"crypto/rand"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"mailcutover/admin"
	"mailcutover/internal/door"
)

const (
	sessionIdle = 30 * time.Minute // without a request; the live update is none
	sessionLife = 12 * time.Hour   // a night's shift
	maxSessions = 10_000
)

// session is somebody who is signed in.
type session struct {
	token  string // asked for again at each request; empty: signed on elsewhere
	id     admin.Identity
	began  time.Time
	seen   time.Time
	ends   time.Time // by the word of who signed him on
	method string
}

// sessions are those who are signed in, by the cookie's value.
type sessions struct {
	now func() time.Time

	tries *rate.Limiter // with tokens that nobody has

	mu  sync.Mutex
	all map[string]*session
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, tries: rate.NewLimiter(rate.Every(200*time.Millisecond), 20), all: make(map[string]*session)}
}

// begin returns the cookie of a new session.
func (s *sessions) begin(one session) string {
	now := s.now()
	one.began, one.seen = now, now
	if one.ends.IsZero() || one.ends.After(now.Add(sessionLife)) {
		one.ends = now.Add(sessionLife)
	}
	key := rand.Text() + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest string
	for k, o := range s.all {
		if o.over(now) {
			delete(s.all, k)
		} else if oldest == "" || o.seen.Before(s.all[oldest].seen) {
			oldest = k
		}
	}
	if len(s.all) >= maxSessions {
		delete(s.all, oldest)
	}
	s.all[key] = &one
	return key
}

func (o *session) over(now time.Time) bool {
	return now.After(o.ends) || now.After(o.seen.Add(sessionIdle))
}

// find returns a session; active says that a person made the request.
func (s *sessions) find(key string, active bool) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.all[key]
	if o == nil {
		return session{}, false
	}
	now := s.now()
	if o.over(now) {
		delete(s.all, key)
		return session{}, false
	}
	if active {
		o.seen = now
	}
	return *o, true
}

func (s *sessions) end(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, key)
}

// guess reports whether another token that nobody has may be tried now. A token has 256 bits,
// so this is against noise in the log rather than against guessing.
func (s *sessions) guess() bool { return s.tries.AllowN(s.now(), 1) }

// cookieName has the prefix with which browsers make sure that no other host and no plain
// connection has set it, where there is TLS.
func (p *Page) cookieName() string {
	if p.Secure {
		return "__Host-mailcutover"
	}
	return "mailcutover"
}

func (p *Page) cookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: p.cookieName(), Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: p.Secure, SameSite: http.SameSiteStrictMode}
}

// who returns who makes a request.
func (p *Page) who(r *http.Request, active bool) (key string, s session, ok bool) {
	c, err := r.Cookie(p.cookieName())
	if err != nil {
		return "", session{}, false
	}
	s, ok = p.sessions.find(c.Value, active)
	if !ok {
		return "", session{}, false
	}
	if s.token != "" {
		s.id, ok = p.Identify(s.token)
	} else {
		s.id, ok = p.SignOn.Again(s.id)
	}
	if !ok { // taken out of the configuration
		p.sessions.end(c.Value)
		return "", session{}, false
	}
	door.Vouch(r.Context())
	return c.Value, s, true
}
