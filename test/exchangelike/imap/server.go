package imap

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// Quirks are what Exchange does.
type Quirks struct {
	// Rewrite takes messages apart and gives back others: header fields folded anew, the date
	// in UTC, other MIME boundaries, fields of its own on top.
	Rewrite bool
	// DropDuplicates answers OK to a message whose Message-ID the folder has, and drops it.
	DropDuplicates bool
	// Limit is the largest message, in bytes; 0: none. It is refused after it was sent, with
	// Exchange's text, or before if Told is set, which also announces APPENDLIMIT.
	Limit int
	Told  bool
	// Throttle answers every n-th APPEND with a request to wait; 0: none.
	Throttle int
	// LongestLine refuses messages with longer lines; 0: none.
	LongestLine int
	// NoKeywords keeps the system flags only, and drops others without a word.
	NoKeywords bool
	// NoUIDPlus doesn't say which UID a message got.
	NoUIDPlus bool
	// NoMove has no MOVE.
	NoMove bool
	// Delay is how late a message shows that was answered OK.
	Delay time.Duration
}

// Server is a platform with mailboxes.
type Server struct {
	Addr   string // host and port
	quirks Quirks

	server  *imapserver.Server
	done    chan struct{}
	closing chan struct{}

	mu      sync.Mutex
	users   map[string]*imapmemserver.User
	hung    map[string]bool
	appends int
	late    sync.WaitGroup
}

// Account opens all mailboxes, as EXAMPLE\svc\MAILBOX, with Password.
const (
	Account  = `EXAMPLE\svc`
	Password = "service"
)

// Folders are what a mailbox has from the beginning.
var Folders = []string{"INBOX", "Gesendete Elemente", "Entwürfe", "Gelöschte Elemente", "Junk-E-Mail", "Kalender", "Kontakte"}

// Cleaner is a test, as far as it matters here.
type Cleaner interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start starts a platform that has these mailboxes, by login. It ends with the test.
func Start(t Cleaner, q Quirks, logins ...string) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("mailboxes of an Exchange: %v", err)
	}
	s := &Server{Addr: l.Addr().String(), quirks: q, users: make(map[string]*imapmemserver.User), hung: make(map[string]bool), done: make(chan struct{}), closing: make(chan struct{})}
	for _, login := range logins {
		u := imapmemserver.NewUser(login, Password)
		for _, f := range Folders {
			if err := u.Create(f, nil); err != nil {
				t.Fatalf("mailboxes of an Exchange: %v", err)
			}
		}
		s.users[login] = u
	}
	caps := imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapNamespace: {}, imap.CapIdle: {}, imap.CapLiteralPlus: {}, imap.CapUnselect: {}}
	if !q.NoMove {
		caps[imap.CapMove] = struct{}{}
	}
	if !q.NoUIDPlus {
		caps[imap.CapUIDPlus] = struct{}{}
	}
	if q.Told {
		caps[imap.CapAppendLimit] = struct{}{}
	}
	s.server = imapserver.New(&imapserver.Options{
		Caps: caps, InsecureAuth: true, Logger: log.New(io.Discard, "", 0),
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			x := &session{s: s}
			if q.Told {
				return &limited{x}, nil, nil
			}
			return x, nil, nil
		},
	})
	go func() {
		defer close(s.done)
		_ = s.server.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		close(s.closing)
		_ = s.server.Close() // connections are closed with it; nothing is to be saved
		<-s.done
		s.late.Wait()
	})
	return s
}

// Hang has every command about a mailbox wait until the test ends.
func (s *Server) Hang(login string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hung[login] = true
}

// Put stores a message as it stands, without quirks.
func (s *Server) Put(login, folder string, raw []byte, flags []imap.Flag, at time.Time) error {
	s.mu.Lock()
	u := s.users[login]
	s.mu.Unlock()
	if u == nil {
		return errors.New("no such mailbox")
	}
	_, err := u.Append(folder, literal{bytes.NewReader(raw)}, &imap.AppendOptions{Flags: flags, Time: at})
	return err
}

// literal is a message as a literal.
type literal struct{ *bytes.Reader }

// Size implements imap.LiteralReader.
func (l literal) Size() int64 { return l.Reader.Size() }

// session is a connection.
type session struct {
	*imapmemserver.UserSession
	s     *Server
	login string
	at    string // the folder that is selected
}

// Login implements imapserver.Session: the account's name and the mailbox's in one.
func (x *session) Login(username, password string) error {
	login, ok := strings.CutPrefix(username, Account+`\`)
	x.s.mu.Lock()
	u := x.s.users[login]
	x.s.mu.Unlock()
	if !ok || password != Password {
		return imapserver.ErrAuthFailed
	}
	if u == nil {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Text: "User is authenticated but not connected."}
	}
	x.UserSession, x.login = imapmemserver.NewUserSession(u), login
	return nil
}

// Close implements imapserver.Session.
func (x *session) Close() error {
	if x.UserSession == nil {
		return nil
	}
	return x.UserSession.Close()
}

// wait hangs if the mailbox does.
func (x *session) wait() {
	x.s.mu.Lock()
	hung := x.s.hung[x.login]
	x.s.mu.Unlock()
	if hung {
		<-x.s.closing
	}
}

// List implements imapserver.Session.
func (x *session) List(w *imapserver.ListWriter, ref string, patterns []string, options *imap.ListOptions) error {
	x.wait()
	return x.UserSession.List(w, ref, patterns, options)
}

// Select implements imapserver.Session.
func (x *session) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	x.wait()
	data, err := x.UserSession.Select(name, options)
	if err != nil {
		return nil, err
	}
	x.at = name
	if x.s.quirks.NoKeywords {
		data.PermanentFlags = systemFlags(data.PermanentFlags)
		data.Flags = systemFlags(data.Flags)
	}
	return data, nil
}

// systemFlags leaves out keywords, and the leave to make some.
func systemFlags(flags []imap.Flag) []imap.Flag {
	known := []imap.Flag{imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft}
	if len(flags) == 0 {
		return known
	}
	var out []imap.Flag
	for _, f := range flags {
		if strings.HasPrefix(string(f), `\`) && f != imap.FlagWildcard {
			out = append(out, f)
		}
	}
	return out
}

// Append implements imapserver.Session.
func (x *session) Append(folder string, r imap.LiteralReader, options *imap.AppendOptions) (*imap.AppendData, error) {
	x.wait()
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	q := &x.s.quirks
	x.s.mu.Lock()
	x.s.appends++
	throttled := q.Throttle > 0 && x.s.appends%q.Throttle == 0
	x.s.mu.Unlock()
	switch {
	case throttled:
		return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Text: "Request is throttled. Suggested Backoff Time: 50 Milliseconds"}
	case q.Limit > 0 && len(raw) > q.Limit:
		return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Text: "APPEND failed. The message exceeds the maximum supported size"}
	case q.LongestLine > 0 && longestLine(raw) > q.LongestLine:
		return nil, &imap.Error{Type: imap.StatusResponseTypeBad, Text: "Command Argument Error. 11"}
	case q.DropDuplicates && x.has(folder, messageID(raw)):
		return nil, nil
	}
	if q.NoKeywords && len(options.Flags) > 0 {
		options.Flags = systemFlags(options.Flags)
	}
	if q.Rewrite {
		raw = rewrite(raw)
	}
	if q.Delay > 0 {
		x.s.late.Go(func() {
			select {
			case <-time.After(q.Delay):
				_ = x.s.Put(x.login, folder, raw, options.Flags, options.Time) // the folder is there: it was answered OK
			case <-x.s.closing:
			}
		})
		return nil, nil
	}
	data, err := x.UserSession.Append(folder, literal{bytes.NewReader(raw)}, options)
	if q.NoUIDPlus {
		data = nil
	}
	return data, err
}

// has reports whether a folder has a message with this Message-ID.
func (x *session) has(folder, id string) bool {
	if id == "" {
		return false
	}
	view := imapmemserver.NewUserSession(x.s.users[x.login])
	if _, err := view.Select(folder, &imap.SelectOptions{ReadOnly: true}); err != nil {
		return false
	}
	defer view.Close()
	found, err := view.Search(imapserver.NumKindUID, &imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Message-ID", Value: id}}}, &imap.SearchOptions{})
	return err == nil && found.All != nil && len(found.AllUIDs()) > 0
}

// limited is a session that tells its limit.
type limited struct{ *session }

// AppendLimit implements imapserver.SessionAppendLimit.
func (x *limited) AppendLimit() uint32 { return uint32(x.s.quirks.Limit) }

var (
	_ imapserver.SessionIMAP4rev2   = (*session)(nil)
	_ imapserver.SessionAppendLimit = (*limited)(nil)
)
