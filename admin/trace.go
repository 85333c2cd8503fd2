package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// Ledger is the record of deliveries; *ledger.Ledger is one.
type Ledger interface {
	Find(ctx context.Context, q ledger.Query) iter.Seq2[ledger.Record, error]
	Status() ledger.Status
	Unknown() (since time.Time, unknown bool)
}

// Traces are the ways of messages, the newest first.
type Traces struct {
	Messages []Trace  `json:"messages"`
	More     bool     `json:"more,omitempty" doc:"There are more than the limit"`
	Notes    []string `json:"notes,omitempty" doc:"What may be missing here, and why"`
}

// Trace is the way of one message through one node, without its content.
type Trace struct {
	Node        string        `json:"node"`
	Transaction string        `json:"transaction"`
	From        string        `json:"from" doc:"Envelope sender; empty: the null sender"`
	MessageID   string        `json:"message_id,omitempty"`
	Size        int64         `json:"size"`
	Events      []TraceEvent  `json:"events" doc:"The oldest first"`
	Twice       []string      `json:"possible_duplicates,omitempty" doc:"Recipients who may have it twice: an answer was lost, or not passed on"`
	Spool       *SpoolMessage `json:"spool,omitempty" doc:"What the spool has of it now; absent if nothing is left to do"`
}

// TraceEvent is one thing that happened to a message.
type TraceEvent struct {
	Time       time.Time `json:"time"`
	What       string    `json:"what" enum:"accepted,handed over,delivered,not acknowledged,refused,in doubt,not sent,pending,expired,notice sent,no notice,quarantined,released,dropped,put off,unknown"`
	Text       string    `json:"text" doc:"In words"`
	Platform   string    `json:"platform,omitempty"`
	Host       string    `json:"host,omitempty" doc:"Of the platform"`
	Recipients []string  `json:"recipients,omitempty"`
	Code       int       `json:"code,omitempty" doc:"Of the platform's answer"`
	Answer     string    `json:"answer,omitempty" doc:"Or the reason"`
}

const (
	tracePath = "/v1/trace"

	// findTimeout bounds a search: what was found by then is shown, and that it may be
	// not all.
	findTimeout = 20 * time.Second

	// peerFindTimeout is how long another node is waited for: its ledger may be large, but one
	// that is gone shall not keep a search.
	peerFindTimeout = 5 * time.Second

	// maxSpoolSearch is how many messages of the spool are read at most to find some by
	// their sender or Message-ID, which memory doesn't hold.
	maxSpoolSearch = 20_000
)

// traceQuery names messages by one of their names.
type traceQuery struct {
	Transaction string    `query:"transaction" maxLength:"100"`
	MessageID   string    `query:"message_id" maxLength:"1000" doc:"With or without brackets"`
	From        string    `query:"from" maxLength:"1000" doc:"Envelope sender; <> for the null sender"`
	Recipient   string    `query:"rcpt" maxLength:"1000"`
	Since       time.Time `query:"since"`
	Until       time.Time `query:"until"`
	Limit       int       `query:"limit" minimum:"1" maximum:"1000" default:"20" doc:"Messages"`
	Here        bool      `query:"here" doc:"Only on this node"`
}

// values returns the search as a node is asked.
func (in *traceQuery) values() url.Values {
	q := span(in.Since, in.Until, in.Limit)
	for key, value := range map[string]string{"transaction": in.Transaction, "message_id": in.MessageID, "from": in.From, "rcpt": in.Recipient} {
		if value != "" {
			q.Set(key, value)
		}
	}
	return q
}

func (s *Server) registerTrace(api huma.API) {
	tags := []string{"ledger"}
	handle(s, api, huma.Operation{
		OperationID: "trace", Method: http.MethodGet, Path: tracePath, Tags: tags,
		Summary:     "The way of messages through all nodes, without their content",
		Description: "Name exactly one of transaction, message_id, from and rcpt. Another node is waited for five seconds; the notes name those that did not answer. A message that went through two nodes is there twice.",
	}, func(ctx context.Context, in *traceQuery) (*reply[Traces], error) {
		return s.trace(ctx, in)
	})
	s.registerLocate(api)
	s.registerLedger(api, tags)
}

// wanted is a search for messages.
type wanted struct {
	ledger ledger.Query
	spool  spool.Filter
	match  func(*spool.Message) bool // nil: the filter says it all
}

func (s *Server) wanted(in *traceQuery) (w wanted, err error) {
	named := 0
	for _, x := range []string{in.Transaction, in.MessageID, in.From, in.Recipient} {
		if x != "" {
			named++
		}
	}
	if named != 1 {
		return w, problem(http.StatusBadRequest, "", "name a transaction, a Message-ID, a sender or a recipient, one of them")
	}
	w.ledger = ledger.Query{MessageID: in.MessageID, From: in.From, Since: in.Since, Until: in.Until}
	switch {
	case in.Transaction != "":
		if w.ledger.Transaction, err = parseTransaction(in.Transaction); err != nil {
			return w, err
		}
		w.spool.Transaction = w.ledger.Transaction
	case in.Recipient != "":
		a, err := routing.ParseAddress(in.Recipient)
		if err != nil {
			return w, problem(http.StatusBadRequest, "write it as local-part@domain", "%s", err)
		}
		w.ledger.Recipient = string(a)
		w.match = func(m *spool.Message) bool {
			return slices.ContainsFunc(m.Recipients, func(r spool.Recipient) bool { return r.Address == a })
		}
		// Mail for an address of a mailbox is kept under who has the address now.
		w.spool.Key = spool.KeyOf(s.Replica.State().DecideAddress(a, s.Separator).Mailbox, a)
	case in.MessageID != "":
		id := strings.Trim(in.MessageID, "<> ")
		w.match = func(m *spool.Message) bool { return strings.Trim(m.MessageID, "<> ") == id }
	default:
		from := strings.Trim(in.From, "<>")
		w.match = func(m *spool.Message) bool { return strings.EqualFold(m.From.String(), from) }
	}
	return w, nil
}

func (s *Server) trace(ctx context.Context, in *traceQuery) (*reply[Traces], error) {
	w, err := s.wanted(in)
	if err != nil {
		return nil, err
	}
	theirs := make(chan tracedElsewhere, 1)
	go func() { theirs <- s.traceElsewhere(ctx, in) }() // no longer than a peer's timeout, beside this node's search
	out := s.traceHere(ctx, in, &w)
	rest, t := <-theirs, &out.Body
	t.Messages, t.Notes = append(t.Messages, rest.messages...), append(t.Notes, rest.notes...)
	t.More = t.More || rest.more
	slices.SortStableFunc(t.Messages, func(a, b Trace) int {
		return cmp.Or(strings.Compare(b.Transaction, a.Transaction), strings.Compare(a.Node, b.Node)) // transactions: by time
	})
	if len(t.Messages) > in.Limit {
		t.Messages, t.More = t.Messages[:in.Limit], true
	}
	return out, nil
}

// tracedElsewhere is what other nodes found.
type tracedElsewhere struct {
	messages []Trace
	more     bool
	notes    []string
}

func (s *Server) traceElsewhere(ctx context.Context, in *traceQuery) (all tracedElsewhere) {
	if in.Here {
		return all
	}
	missing := elsewhere(ctx, s, s.others(ctx, true), peer.Call{Method: http.MethodGet, Path: tracePath, Query: in.values(), Timeout: peerFindTimeout}, func(node string, theirs Traces) {
		all.messages = append(all.messages, theirs.Messages...)
		all.more = all.more || theirs.More
		for _, note := range theirs.Notes {
			all.notes = append(all.notes, "node "+node+": "+note)
		}
	})
	for _, m := range missing {
		all.notes = append(all.notes, fmt.Sprintf("node %s did not answer, and what went through it is not here: %s", m.Node, m.Error))
	}
	return all
}

// traceHere looks at this node.
func (s *Server) traceHere(ctx context.Context, in *traceQuery, w *wanted) *reply[Traces] {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	out := &reply[Traces]{Body: Traces{Messages: []Trace{}, Notes: s.doubts()}}
	t := &out.Body
	ids := s.spoolSearch(ctx, w, in, t)
	var handed []mail.TransactionID
	for r, err := range s.Ledger.Find(ctx, w.ledger) {
		switch {
		case err != nil:
			t.noteError(ctx, err)
		case !slices.Contains(handed, r.Transaction):
			handed = append(handed, r.Transaction)
		}
		if t.More = len(handed) > in.Limit; t.More {
			break
		}
	}
	ids = append(ids, handed...)
	slices.SortFunc(ids, func(a, b mail.TransactionID) int { return strings.Compare(string(b), string(a)) }) // by time
	if ids = slices.Compact(ids); len(ids) > in.Limit {
		ids, t.More = ids[:in.Limit], true
	}
	for _, id := range ids {
		t.Messages = append(t.Messages, s.way(ctx, id, t))
	}
	t.Notes = append(t.Notes, cutShort(ctx)...)
	return out
}

// noteError notes that a part of the ledger can't be read.
func (t *Traces) noteError(ctx context.Context, err error) {
	if ctx.Err() == nil { // else cutShort says it
		t.Notes = append(t.Notes, err.Error())
	}
}

// cutShort says that a search took too long.
func cutShort(ctx context.Context) []string {
	if ctx.Err() == nil {
		return nil
	}
	return []string{fmt.Sprintf("the search was ended after %s; narrow it down", findTimeout)}
}

// doubts says what may be missing in the ledger.
func (s *Server) doubts() (notes []string) {
	st := s.Ledger.Status()
	if st.Err != nil {
		notes = append(notes, "the ledger can't be written now: "+st.Err.Error())
	}
	if since, unknown := s.Ledger.Unknown(); unknown {
		if since.IsZero() {
			notes = append(notes, "the end of the ledger could not be read at the start: deliveries right before may be missing")
		} else {
			notes = append(notes, fmt.Sprintf("the machine lost power: deliveries between %s and the start may be missing", since.UTC().Format(time.RFC3339)))
		}
	}
	for _, f := range st.Aside {
		notes = append(notes, "a file of the ledger could not be read and was set aside: "+f)
	}
	return notes
}

// spoolSearch returns the messages of the spool that are wanted.
func (s *Server) spoolSearch(ctx context.Context, w *wanted, in *traceQuery, t *Traces) (ids []mail.TransactionID) {
	var last mail.TransactionID
	read := 0
	s.Spool.Each(w.spool, func(e spool.Entry) bool {
		if e.Transaction == last || !in.Since.IsZero() && e.Time.Before(in.Since) || !in.Until.IsZero() && !e.Time.Before(in.Until) {
			return true
		}
		last = e.Transaction
		if w.match != nil {
			if read++; read > maxSpoolSearch || ctx.Err() != nil {
				t.Notes = append(t.Notes, fmt.Sprintf("only the oldest %d messages of the spool were looked at; give the time, or the recipient", read-1))
				return false
			}
			if m, err := s.Spool.Get(e.Transaction); err != nil || !w.match(m) {
				return true
			}
		}
		ids = append(ids, e.Transaction)
		return true
	})
	return ids
}

// way returns what is known of one message.
func (s *Server) way(ctx context.Context, id mail.TransactionID, all *Traces) Trace {
	t := Trace{Node: s.Node, Transaction: string(id), Events: []TraceEvent{}}
	var twice []string
	accepted := false
	for r, err := range s.Ledger.Find(ctx, ledger.Query{Transaction: id}) {
		if err != nil {
			all.noteError(ctx, err)
			continue
		}
		t.From, t.MessageID, t.Size = r.From, r.MessageID, r.Size
		events, doubtful := events(&r)
		accepted = accepted || r.Local && r.Answer(0).Result == ledger.ResultAccepted
		t.Events = append(t.Events, events...)
		twice = append(twice, doubtful...)
	}
	m, err := s.Spool.Get(id)
	switch {
	case err == nil:
		v := messageView(m)
		t.Spool, t.From, t.MessageID, t.Size = &v, v.From, v.MessageID, v.Size
		if !accepted { // by a program before the ledger knew, or by another node
			t.Events = append(t.Events, TraceEvent{Time: m.Time, What: "accepted", Text: "accepted into this node's spool" + broughtBy(&v)})
		}
	case !errors.Is(err, spool.ErrUnknown):
		all.Notes = append(all.Notes, fmt.Sprintf("what the spool has of %s can't be read: %s", id, err))
	}
	slices.SortStableFunc(t.Events, func(a, b TraceEvent) int { return a.Time.Compare(b.Time) })
	slices.Sort(twice)
	t.Twice = slices.Compact(twice)
	return t
}

func broughtBy(m *SpoolMessage) string {
	if m.Client == "" {
		return ""
	}
	return fmt.Sprintf(", from %s (%s)", m.Client, m.Helo)
}

// events returns what a record of the ledger tells, and for whom there may be a duplicate
// because of it.
func events(r *ledger.Record) (events []TraceEvent, twice []string) {
	at, host := fmt.Sprintf("%s (%s)", r.Platform, r.Host), r.Host
	if r.Local {
		host = ""
	}
	var all []string
	type ending struct {
		answer ledger.Answer
		rcpts  []string
	}
	var endings []ending
	for i := range r.Recipients {
		name := string(r.Recipients[i].Address)
		all = append(all, name)
		a := r.Answer(i)
		if a.Result == ledger.ResultInDoubt || a.Result == ledger.ResultNotAcknowledged {
			twice = append(twice, name)
		}
		if j := slices.IndexFunc(endings, func(e ending) bool { return e.answer == a }); j >= 0 {
			endings[j].rcpts = append(endings[j].rcpts, name)
		} else {
			endings = append(endings, ending{a, []string{name}})
		}
	}
	if !r.Local {
		events = append(events, TraceEvent{
			Time: r.Time, What: "handed over", Platform: string(r.Platform), Host: r.Host, Recipients: all, Text: "about to be handed to " + at,
		})
	}
	for _, e := range endings {
		x := TraceEvent{
			Time: r.Answered, What: e.answer.Result.String(), Platform: string(r.Platform), Host: host, Recipients: e.rcpts,
			Code: e.answer.Code, Answer: e.answer.Text, Text: ended(at, e.answer.Result),
		}
		if r.Local {
			x.Text = became(r, e.answer.Result)
		}
		if x.Time.IsZero() {
			x.Time = r.Time
		}
		events = append(events, x)
	}
	return events, twice
}

// ended says how a handover ended.
func ended(at string, r ledger.Result) string {
	switch r {
	case ledger.ResultDelivered:
		return "delivered: " + at + " took it"
	case ledger.ResultNotAcknowledged:
		return "taken by " + at + ", but too late to count: the sender was not told so, and another copy may follow: possible duplicate"
	case ledger.ResultRefused:
		return "refused by " + at
	case ledger.ResultInDoubt:
		return "in doubt: the final dot went to " + at + ", or may have, and no answer was seen: possible duplicate"
	case ledger.ResultNotSent:
		return "not sent after all: nothing reached " + at
	case ledger.ResultPending:
		return "under way: the answer of " + at + " is awaited"
	}
	return "what became of it is not known"
}

// became says what became of a message without a platform's acceptance.
func became(r *ledger.Record, result ledger.Result) string {
	switch result {
	case ledger.ResultAccepted:
		if r.Host != "" {
			return "accepted into this node's spool, from " + r.Host
		}
		return "accepted into this node's spool"
	case ledger.ResultNotAcknowledged:
		return "taken into this node's spool, or about to be, but the sender was not told so, and another copy may follow: possible duplicate"
	case ledger.ResultPending:
		return "under way into this node's spool"
	case ledger.ResultNotSent:
		return "not taken into this node's spool after all"
	case ledger.ResultRefused:
		return "refused for good by " + string(r.Platform)
	case ledger.ResultExpired:
		return "given up: tried for too long"
	case ledger.ResultNotice:
		return "a notice to its sender is in the spool"
	case ledger.ResultNoNotice:
		return "done: its sender wanted no notice"
	case ledger.ResultQuarantined:
		return "set aside in quarantine"
	case ledger.ResultReleased:
		return "taken out of quarantine by a person"
	case ledger.ResultDropped:
		return "dropped by a person"
	case ledger.ResultPutOff:
		return "put off by " + string(r.Platform) + ", or it couldn't be reached; it is tried again"
	}
	return "what became of it is not known"
}

// TraceQuery names messages by exactly one of Transaction, MessageID, From and Recipient.
type TraceQuery struct {
	Transaction, MessageID, From, Recipient string
	Since, Until                            time.Time // zero: no bound
	Limit                                   int       // messages; 0: the node's default
}

// Trace returns the way of messages.
func (c *Client) Trace(ctx context.Context, t TraceQuery) (Traces, error) {
	in := traceQuery{Transaction: t.Transaction, MessageID: t.MessageID, From: t.From, Recipient: t.Recipient, Since: t.Since, Until: t.Until, Limit: t.Limit}
	return get[Traces](ctx, c, tracePath, in.values())
}

func span(since, until time.Time, limit int) url.Values {
	q := url.Values{}
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	if !until.IsZero() {
		q.Set("until", until.UTC().Format(time.RFC3339Nano))
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q
}
