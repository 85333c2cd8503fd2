package admin

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/audit"
	"mailcutover/routing"
)

// LoginSessions are the sessions of logins that go through this node. Its methods are safe
// for concurrent use, and wait for nobody.
type LoginSessions interface {
	// List returns those that q wants.
	List(q SessionQuery) []Session
	// Close ends those that q wants, and returns how many it ended. They have no byte more
	// from their platform when it returns, or within a second.
	Close(q SessionQuery, reason string) int
}

// SessionQuery selects sessions: those that fit all that is set.
type SessionQuery struct {
	ID       string
	Agency   routing.AgencyID
	Mailbox  routing.MailboxID
	Login    string       // what the platform was told; case doesn't matter
	Client   netip.Prefix // net of the client's address
	Platform routing.PlatformID
	Protocol string
}

// Matches reports whether a session is one that q wants, as far as s says.
func (q *SessionQuery) Matches(s *Session) bool {
	if q.Client.IsValid() {
		a, err := netip.ParseAddrPort(s.Client)
		if err != nil || !q.Client.Contains(a.Addr().Unmap()) {
			return false
		}
	}
	return (q.ID == "" || q.ID == s.ID) && (q.Agency == "" || string(q.Agency) == s.Agency) &&
		(q.Mailbox.IsZero() || q.Mailbox.String() == s.Mailbox) && (q.Login == "" || strings.EqualFold(q.Login, s.Login)) &&
		(q.Platform == "" || string(q.Platform) == s.Platform) && (q.Protocol == "" || q.Protocol == s.Protocol)
}

// Session is a login that a platform has taken.
type Session struct {
	ID           string    `json:"id" doc:"In all logs"`
	Node         string    `json:"node"`
	Protocol     string    `json:"protocol" enum:"imap,submission,pop3,sieve"`
	State        string    `json:"state" enum:"opening,joined,suspended,ending" doc:"opening: the login is under way; suspended: this node may not decide now, and no byte flows; ending: the platform's side is cut, and the client is told soon"`
	Login        string    `json:"login" doc:"What the platform was told"`
	Mailbox      string    `json:"mailbox" doc:"Directory id"`
	Agency       string    `json:"agency"`
	Epoch        string    `json:"epoch" doc:"Of the record that sent it there"`
	Platform     string    `json:"platform"`
	Client       string    `json:"client" doc:"Its address and port"`
	Listener     string    `json:"listener"`
	Since        time.Time `json:"since"`
	FromClient   int64     `json:"from_client_bytes"`
	FromPlatform int64     `json:"from_platform_bytes"`
}

// Sessions is a page of them, by node and id.
type Sessions struct {
	Sessions []Session `json:"sessions"`
	Total    int       `json:"total" doc:"That fit, on all nodes that answered"`
	Next     string    `json:"next,omitempty" doc:"Say it as after to get the next page; absent on the last"`
	Missing  []Missing `json:"missing" doc:"Nodes that did not answer: their sessions are not here"`
}

// SessionsClosed says what became of the wish to close sessions.
type SessionsClosed struct {
	Closed  int             `json:"closed" doc:"On all nodes that answered"`
	Nodes   []NodeOfClosing `json:"nodes"`
	Missing []Missing       `json:"missing" doc:"Nodes that did not answer: their sessions may go on"`
}

// NodeOfClosing is how many sessions one node closed.
type NodeOfClosing struct {
	Node   string `json:"node"`
	Closed int    `json:"closed"`
}

const (
	sessionsPath = "/v1/sessions"
	maxSessions  = 1000 // of a page
)

// SessionFilter names sessions; what is set has to fit together.
type SessionFilter struct {
	ID       string `query:"id" json:"id,omitempty" maxLength:"100" doc:"Of one session"`
	Agency   string `query:"agency" json:"agency,omitempty" maxLength:"63"`
	Mailbox  string `query:"mailbox" json:"mailbox,omitempty" maxLength:"1000" doc:"Directory id, address or login"`
	Login    string `query:"login" json:"login,omitempty" maxLength:"255" doc:"What the platform was told; for all names of a mailbox say mailbox"`
	Address  string `query:"address" json:"address,omitempty" maxLength:"64" doc:"Of the client, or its net, such as 192.0.2.0/24"`
	Platform string `query:"platform" json:"platform,omitempty" maxLength:"63"`
	Protocol string `query:"protocol" json:"protocol,omitempty" enum:"imap,submission,pop3,sieve"`
}

// sessionQuery returns what f asks for. Names that nobody knows are problems, so that a slip of the
// pen doesn't look like "there is none".
func (s *Server) sessionQuery(f *SessionFilter) (q SessionQuery, err error) {
	q.ID, q.Login, q.Protocol = f.ID, f.Login, f.Protocol
	if f.Agency != "" {
		if _, ok := s.Replica.State().Agency(routing.AgencyID(f.Agency)); !ok {
			return q, noAgency(f.Agency)
		}
		q.Agency = routing.AgencyID(f.Agency)
	}
	if f.Mailbox != "" {
		if q.Mailbox, err = routing.ParseMailboxID(f.Mailbox); err != nil { // a directory id need not be in the table any more
			m, err := s.mailbox(f.Mailbox)
			if err != nil {
				return q, err
			}
			if q.Mailbox, err = routing.ParseMailboxID(m.Body.ID); err != nil {
				return q, err
			}
		}
	}
	if f.Address != "" {
		if q.Client, err = parseNet(f.Address); err != nil {
			return q, problem(http.StatusBadRequest, "such as 192.0.2.7 or 192.0.2.0/24", "%s is neither an address nor a net", f.Address)
		}
	}
	if f.Platform != "" {
		if !slices.ContainsFunc(s.Platforms(), func(p Platform) bool { return p.ID == f.Platform }) {
			return q, notFound("see the platforms of mailcutover config show", "no platform %q", f.Platform)
		}
		q.Platform = routing.PlatformID(f.Platform)
	}
	return q, nil
}

func parseNet(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// values returns f as another node is asked.
func (f *SessionFilter) values() url.Values {
	q := url.Values{}
	for key, value := range map[string]string{
		"id": f.ID, "agency": f.Agency, "mailbox": f.Mailbox, "login": f.Login, "address": f.Address, "platform": f.Platform, "protocol": f.Protocol,
	} {
		if value != "" {
			q.Set(key, value)
		}
	}
	return q
}

// listSessions is what list-sessions is asked for.
type listSessions struct {
	SessionFilter
	Here  bool   `query:"here" doc:"Only those of this node"`
	After string `query:"after" maxLength:"200" doc:"What the page before gave as next"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// closeSessions is what close-sessions is asked for.
type closeSessions struct {
	Mutation
	Body struct {
		SessionFilter
		All    bool   `json:"all,omitempty" doc:"Every session; nothing else may be named then"`
		Here   bool   `json:"here,omitempty" doc:"Only on this node"`
		Reason string `json:"reason" minLength:"1" maxLength:"1000" doc:"Why; it is journaled"`
	}
}

// scope says which agencies this concerns: without one, all.
func (c *closeSessions) scope() []routing.AgencyID {
	if c.Body.Agency == "" {
		return nil
	}
	return []routing.AgencyID{routing.AgencyID(c.Body.Agency)}
}

func (s *Server) registerSessions(api huma.API) {
	tags := []string{"sessions"}
	handle(s, api, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: sessionsPath, Tags: tags,
		Summary:     "Sessions of logins, on all nodes, by node and id",
		Description: "Another node is waited for a second; those that did not answer are named.",
	}, func(ctx context.Context, in *listSessions) (*reply[Sessions], error) {
		return s.listSessions(ctx, in)
	})
	handle(s, api, huma.Operation{
		OperationID: "show-session", Method: http.MethodGet, Path: sessionsPath + "/{id}", Tags: tags, Summary: "One session, on whatever node",
	}, func(ctx context.Context, in *struct {
		ID string `path:"id" maxLength:"100"`
	}) (*reply[Session], error) {
		return s.showSession(ctx, in.ID)
	})
	handle(s, api, huma.Operation{
		OperationID: "close-sessions", Method: http.MethodPost, Path: sessionsPath + "/close", Tags: tags,
		Summary:     "End sessions, on all nodes",
		Description: "They have no byte more from their platform within a second; their clients are told, and log in again where the mailbox is. Name the sessions, or say all.",
	}, func(ctx context.Context, in *closeSessions) (*reply[SessionsClosed], error) {
		return s.closeSessions(ctx, in)
	})
}

// mySessions returns those of this node, by id.
func (s *Server) mySessions(q SessionQuery) []Session {
	if s.Sessions == nil {
		return nil
	}
	list := s.Sessions.List(q)
	for i := range list {
		list[i].Node = s.Node
	}
	slices.SortFunc(list, func(a, b Session) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// sessionCursor is where a page begins: behind a session of a node.
func sessionCursor(s *Session) string { return s.Node + "/" + s.ID }

// behind reports whether a session is one of the pages that follow after.
func (s *Session) behind(after string) bool {
	node, id, _ := strings.Cut(after, "/")
	return cmp.Or(strings.Compare(s.Node, node), strings.Compare(s.ID, id)) > 0
}

func (s *Server) listSessions(ctx context.Context, in *listSessions) (*reply[Sessions], error) {
	q, err := s.sessionQuery(&in.SessionFilter)
	if err != nil {
		return nil, err
	}
	out := &reply[Sessions]{Body: Sessions{Sessions: []Session{}, Missing: []Missing{}}}
	v := &out.Body
	all := s.mySessions(q)
	v.Total = len(all)
	all = slices.DeleteFunc(all, func(one Session) bool { return !one.behind(in.After) })
	more := len(all) > in.Limit
	if !in.Here {
		ask := in.values()
		ask.Set("limit", strconv.Itoa(in.Limit))
		if in.After != "" {
			ask.Set("after", in.After)
		}
		v.Missing = elsewhere(ctx, s, s.others(ctx, false), peer.Call{Method: http.MethodGet, Path: sessionsPath, Query: ask}, func(_ string, theirs Sessions) {
			all = append(all, theirs.Sessions...)
			v.Total += theirs.Total
			more = more || theirs.Next != ""
		})
		slices.SortFunc(all, func(a, b Session) int {
			return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.ID, b.ID))
		})
	}
	if len(all) > in.Limit {
		all, more = all[:in.Limit], true
	}
	if v.Sessions = append(v.Sessions, all...); more && len(all) > 0 {
		v.Next = sessionCursor(&all[len(all)-1])
	}
	return out, nil
}

func (s *Server) showSession(ctx context.Context, id string) (*reply[Session], error) {
	found := s.mySessions(SessionQuery{ID: id})
	var missing []Missing
	if len(found) == 0 {
		call := peer.Call{Method: http.MethodGet, Path: sessionsPath, Query: url.Values{"id": {id}}}
		missing = elsewhere(ctx, s, s.others(ctx, false), call, func(_ string, theirs Sessions) { found = append(found, theirs.Sessions...) })
	}
	switch {
	case len(found) > 0:
		return &reply[Session]{Body: found[0]}, nil
	case len(missing) > 0:
		return nil, problem(http.StatusServiceUnavailable, "ask again when all nodes answer", "no session %q on the nodes that answered; %s did not: %s", id, missing[0].Node, missing[0].Error)
	}
	return nil, notFound("see mailcutover session list", "no session %q: it has ended, or never was", id)
}

func (s *Server) closeSessions(ctx context.Context, in *closeSessions) (*reply[SessionsClosed], error) {
	b := &in.Body
	reason, err := checkReason(b.Reason)
	if err != nil {
		return nil, err
	}
	named := b.SessionFilter != SessionFilter{}
	switch {
	case !named && !b.All:
		return nil, problem(http.StatusBadRequest, "name an agency, mailbox, login, address, platform, protocol or session, or say all", "it isn't said which sessions")
	case named && b.All:
		return nil, problem(http.StatusBadRequest, "name sessions, or say all", "all sessions, and only some of them, are wanted at once")
	}
	q, err := s.sessionQuery(&b.SessionFilter)
	if err != nil {
		return nil, err
	}
	if err := s.record(ctx, audit.Entry{Subject: "sessions: " + b.text(), Reason: reason}); err != nil {
		return nil, err
	}
	out := &reply[SessionsClosed]{Body: SessionsClosed{Missing: []Missing{}}}
	v := &out.Body
	if s.Sessions != nil {
		v.Closed = s.Sessions.Close(q, reason)
	}
	v.Nodes = []NodeOfClosing{{s.Node, v.Closed}}
	s.Logger.InfoContext(ctx, "sessions closed by a person", "request", requestOf(ctx).id, "person", callerOf(ctx).person, "reason", reason, "which", b.text(), "closed", v.Closed)
	if b.Here {
		return out, nil
	}
	v.Missing = elsewhere(ctx, s, s.others(ctx, false), peer.Call{Method: http.MethodPost, Path: sessionsPath + "/close", Body: b}, func(_ string, theirs SessionsClosed) {
		v.Closed += theirs.Closed
		v.Nodes = append(v.Nodes, theirs.Nodes...)
	})
	slices.SortFunc(v.Nodes, func(a, b NodeOfClosing) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

// SessionsOf returns how many sessions an agency has on this node and on all others that
// answer within a second, and which didn't.
func (s *Server) SessionsOf(ctx context.Context, agency routing.AgencyID) (n int, missing []string) {
	n = len(s.mySessions(SessionQuery{Agency: agency}))
	if callerOf(ctx).person == "" { // for this node itself
		ctx = context.WithValue(ctx, requestKey{}, &request{caller: caller{person: "node " + s.Node, roles: []Role{RoleViewer}}})
	}
	call := peer.Call{Method: http.MethodGet, Path: sessionsPath, Query: url.Values{"agency": {string(agency)}, "limit": {"1"}}}
	for _, m := range elsewhere(ctx, s, s.others(ctx, false), call, func(_ string, theirs Sessions) { n += theirs.Total }) {
		missing = append(missing, m.Node)
	}
	return n, missing
}

// text says which sessions are meant.
func (f *SessionFilter) text() string {
	var words []string
	for key, values := range f.values() {
		words = append(words, key+" "+values[0])
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// Sessions returns a page of sessions; after is empty for the first. here: only those of the
// node that is called.
func (c *Client) Sessions(ctx context.Context, f SessionFilter, here bool, after string, limit int) (Sessions, error) {
	q := f.values()
	if after != "" {
		q.Set("after", after)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(min(limit, maxSessions)))
	}
	if here {
		q.Set("here", "true")
	}
	return get[Sessions](ctx, c, sessionsPath, q)
}

// Session returns one.
func (c *Client) Session(ctx context.Context, id string) (Session, error) {
	return get[Session](ctx, c, sessionsPath+"/"+url.PathEscape(id), nil)
}

// CloseSessions ends those that f names; all of them if it names none and all is set. here: only
// on the node that is called.
func (c *Client) CloseSessions(ctx context.Context, f SessionFilter, all, here bool, reason string) (SessionsClosed, error) {
	in := closeSessions{}
	in.Body.SessionFilter, in.Body.All, in.Body.Here, in.Body.Reason = f, all, here, reason
	return post[SessionsClosed](ctx, c, sessionsPath+"/close", in.Body)
}
