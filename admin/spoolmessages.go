package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// SpoolEntry is one recipient of a message in the spool.
type SpoolEntry struct {
	Transaction string     `json:"transaction"`
	Recipient   int        `json:"recipient" doc:"Index in the message"`
	Time        time.Time  `json:"time" doc:"When the message was accepted"`
	Agency      string     `json:"agency,omitempty" doc:"At acceptance"`
	Mailbox     string     `json:"mailbox,omitempty" doc:"Directory id, at acceptance"`
	Address     string     `json:"address"`
	State       string     `json:"state" enum:"held,waiting,failed,expired,quarantined"`
	Size        int64      `json:"size" doc:"Bytes of the message"`
	Reason      string     `json:"reason,omitempty" doc:"Why it is here, or the last answer"`
	Attempts    int        `json:"attempts"`
	Next        *time.Time `json:"next_attempt,omitempty" doc:"Absent where the queue decides as things go"`
}

// SpoolEntries is a page of them, in order of acceptance.
type SpoolEntries struct {
	Messages []SpoolEntry `json:"messages"`
	Next     string       `json:"next,omitempty" doc:"Say it as after to get the next page; absent on the last"`
}

// SpoolMessage is a message in the spool, without its content.
type SpoolMessage struct {
	Transaction string           `json:"transaction"`
	Time        time.Time        `json:"time" doc:"When it was accepted"`
	Sequence    uint64           `json:"sequence" doc:"Order of acceptance on this node"`
	From        string           `json:"from" doc:"Envelope sender; empty: the null sender"`
	MessageID   string           `json:"message_id,omitempty"`
	Size        int64            `json:"size"`
	Listener    string           `json:"listener,omitempty"`
	Session     string           `json:"session,omitempty" doc:"Of the connection that brought it, as in the logs"`
	Client      string           `json:"client,omitempty" doc:"Address of the client"`
	Helo        string           `json:"helo,omitempty"`
	Return      string           `json:"ret,omitempty" doc:"RET of MAIL: FULL or HDRS (RFC 3461 section 4.3)"`
	EnvelopeID  string           `json:"envid,omitempty" doc:"ENVID of MAIL"`
	Recipients  []SpoolRecipient `json:"recipients"`
}

// SpoolRecipient is one of its recipients.
type SpoolRecipient struct {
	Address  string     `json:"address" doc:"In canonical form"`
	To       string     `json:"to,omitempty" doc:"As the client wrote it"`
	Agency   string     `json:"agency,omitempty"`
	Mailbox  string     `json:"mailbox,omitempty"`
	State    string     `json:"state" enum:"held,waiting,failed,expired,quarantined,delivered,returned,dropped"`
	Reason   string     `json:"reason,omitempty" doc:"Why it is here, or the text of the last answer"`
	Code     int        `json:"code,omitempty" doc:"Of the platform's last answer"`
	Platform string     `json:"platform,omitempty" doc:"That was tried last"`
	Epoch    string     `json:"epoch,omitempty" doc:"Of the decision for the last attempt"`
	Attempts int        `json:"attempts"`
	Last     *time.Time `json:"last_attempt,omitempty"`
	Next     *time.Time `json:"next_attempt,omitempty"`
	Notify   []string   `json:"notify,omitempty" doc:"NOTIFY of RCPT: of what its sender wants to be told (RFC 3461 section 4.1); absent: as the node decides"`
	Original string     `json:"orcpt,omitempty" doc:"ORCPT of RCPT: type;address"`
}

// spoolQuery names messages; each field that is set must fit.
type spoolQuery struct {
	Agency      string `query:"agency" maxLength:"63"`
	Mailbox     string `query:"mailbox" maxLength:"1000" doc:"Directory id or address"`
	State       string `query:"state" enum:"held,waiting,failed,expired,quarantined"`
	Transaction string `query:"transaction" maxLength:"100"`
	After       string `query:"after" maxLength:"40" doc:"As next of the page before"`
	Limit       int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (s *Server) registerSpoolMessages(api huma.API, tags []string) {
	handle(s, api, huma.Operation{
		OperationID: "list-spool", Method: http.MethodGet, Path: messagesPath, Summary: "What lies in the spool, by recipient, in order of acceptance", Tags: tags,
	}, func(_ context.Context, in *spoolQuery) (*reply[SpoolEntries], error) {
		return s.spoolEntries(in)
	})
	handle(s, api, huma.Operation{
		OperationID: "show-spooled", Method: http.MethodGet, Path: messagesPath + "/{id}", Summary: "One message of the spool, without its content", Tags: tags,
	}, func(_ context.Context, in *struct {
		ID string `path:"id" maxLength:"100"`
	}) (*reply[SpoolMessage], error) {
		m, err := s.spooled(in.ID)
		if err != nil {
			return nil, err
		}
		return &reply[SpoolMessage]{Body: messageView(m)}, nil
	})
}

// subject is what a call names.
type subject struct {
	agency, mailbox, transaction, state string
}

// filter returns what a subject chooses, or why there can't be anything like it.
func (s *Server) filter(in subject) (f spool.Filter, err error) {
	if in.agency != "" {
		f.Agency = routing.AgencyID(in.agency)
		_, known := s.Replica.State().Agency(f.Agency)
		if _, has := s.Spool.Status().Agency[f.Agency]; !known && !has {
			return f, noAgency(in.agency)
		}
	}
	if in.mailbox != "" {
		if f.Key, err = s.key(in.mailbox); err != nil {
			return f, err
		}
	}
	if in.transaction != "" {
		if f.Transaction, err = parseTransaction(in.transaction); err != nil {
			return f, err
		}
	}
	if in.state != "" {
		if f.State, err = spool.ParseState(in.state); err != nil {
			return f, problem(http.StatusBadRequest, "", "%s", err)
		}
	}
	return f, nil
}

func parseTransaction(text string) (mail.TransactionID, error) {
	id, err := mail.ParseTransactionID(text)
	if err != nil {
		return "", problem(http.StatusBadRequest, "it stands in our Received line, in the logs and in mailcutover spool list", "%s", err)
	}
	return id, nil
}

// key returns the one of a mailbox, named by its directory id or one of its addresses, or
// of a fixed address.
func (s *Server) key(name string) (spool.Key, error) {
	if id, err := routing.ParseMailboxID(name); err == nil {
		return spool.KeyOf(id, ""), nil
	}
	a, err := routing.ParseAddress(name)
	if err != nil {
		return "", problem(http.StatusBadRequest, "name a directory id or an address", "mailbox %q is neither", name)
	}
	d := s.Replica.State().DecideAddress(a, s.Separator)
	return spool.KeyOf(d.Mailbox, a), nil
}

// spooled returns a message of the spool.
func (s *Server) spooled(text string) (*spool.Message, error) {
	id, err := parseTransaction(text)
	if err != nil {
		return nil, err
	}
	m, err := s.Spool.Get(id)
	if errors.Is(err, spool.ErrUnknown) {
		return nil, notFound("what became of it says mailcutover trace --transaction "+text, "no message %s in the spool of this node", text)
	}
	if err != nil {
		return nil, problem(http.StatusServiceUnavailable, "see mailcutover spool status, and the disk of the node", "%s", err)
	}
	return m, nil
}

// cursor is where a page of the spool ends: sequence and recipient.
func cursor(e *spool.Entry) string { return fmt.Sprintf("%d.%d", e.Sequence, e.Recipient) }

func parseCursor(text string) (sequence uint64, recipient int, err error) {
	if text == "" {
		return 0, -1, nil
	}
	first, second, _ := strings.Cut(text, ".")
	sequence, err1 := strconv.ParseUint(first, 10, 64)
	recipient, err2 := strconv.Atoi(second)
	if err1 != nil || err2 != nil || sequence == 0 || recipient < 0 {
		return 0, 0, problem(http.StatusBadRequest, "say what the page before gave as next", "after %q is no place in the spool", text)
	}
	return sequence, recipient, nil
}

func (s *Server) spoolEntries(in *spoolQuery) (*reply[SpoolEntries], error) {
	f, err := s.filter(subject{agency: in.Agency, mailbox: in.Mailbox, transaction: in.Transaction, state: in.State})
	if err != nil {
		return nil, err
	}
	sequence, recipient, err := parseCursor(in.After)
	if err != nil {
		return nil, err
	}
	if sequence > 0 {
		f.After = sequence - 1
	}
	out := &reply[SpoolEntries]{Body: SpoolEntries{Messages: []SpoolEntry{}}}
	var page []spool.Entry
	s.Spool.Each(f, func(e spool.Entry) bool {
		if e.Sequence == sequence && e.Recipient <= recipient {
			return true
		}
		if len(page) == in.Limit {
			out.Body.Next = cursor(&page[len(page)-1])
			return false
		}
		page = append(page, e)
		return true
	})
	var m *spool.Message
	for i := range page {
		e := &page[i]
		if m == nil || m.Transaction != e.Transaction {
			if m, err = s.Spool.Get(e.Transaction); errors.Is(err, spool.ErrUnknown) {
				continue // it ended meanwhile
			}
		}
		out.Body.Messages = append(out.Body.Messages, entryView(e, m, err))
	}
	return out, nil
}

// entryView returns an entry; m is nil where the journal can't be read, which err says.
func entryView(e *spool.Entry, m *spool.Message, err error) SpoolEntry {
	v := SpoolEntry{Transaction: string(e.Transaction), Recipient: e.Recipient, Time: e.Time, Agency: string(e.Agency), State: e.State.String(), Size: e.Size}
	if id := e.Key.Mailbox(); !id.IsZero() {
		v.Mailbox = id.String()
	} else {
		v.Address = e.Key.String()
	}
	if m == nil || e.Recipient >= len(m.Recipients) {
		v.Reason = errorText(err)
		return v
	}
	r := &m.Recipients[e.Recipient]
	v.Address, v.Reason, v.Attempts = string(r.Address), r.Reason, r.Last.Attempts
	if r.State == spool.StateWaiting {
		v.Next = timeView(r.Last.Next)
	}
	return v
}

func messageView(m *spool.Message) SpoolMessage {
	v := SpoolMessage{
		Transaction: string(m.Transaction), Time: m.Time, Sequence: m.Sequence, From: m.From.String(), MessageID: m.MessageID, Size: m.Size,
		Listener: m.Client.Listener, Session: m.Client.Session, Helo: m.Client.Helo,
		Return: string(m.Options.Return), EnvelopeID: m.Options.EnvelopeID, Recipients: []SpoolRecipient{},
	}
	if m.Client.Addr.IsValid() {
		v.Client = m.Client.Addr.Addr().String()
	}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		x := SpoolRecipient{
			Address: string(r.Address), To: r.To.String(), Agency: string(r.Agency), State: r.State.String(), Reason: r.Reason,
			Code: r.Last.Code, Platform: string(r.Last.Platform), Attempts: r.Last.Attempts, Last: timeView(r.Last.Time),
		}
		if !r.Mailbox.IsZero() {
			x.Mailbox = r.Mailbox.String()
		}
		if r.Last.Epoch != (routing.Epoch{}) {
			x.Epoch = r.Last.Epoch.String()
		}
		if r.State == spool.StateWaiting {
			x.Next = timeView(r.Last.Next)
		}
		for _, n := range r.Options.Notify {
			x.Notify = append(x.Notify, string(n))
		}
		if o := &r.Options; o.OriginalRecipient != "" {
			x.Original = string(o.OriginalRecipientType) + ";" + o.OriginalRecipient
		}
		v.Recipients = append(v.Recipients, x)
	}
	return v
}

// SpoolFilter names mail in the spool; empty fields choose all.
type SpoolFilter struct {
	Agency, Mailbox, State, Transaction string
}

// Spooled returns a page of what lies in the spool, at most limit; after empty is the
// first page.
func (c *Client) Spooled(ctx context.Context, f SpoolFilter, after string, limit int) (SpoolEntries, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for name, value := range map[string]string{"agency": f.Agency, "mailbox": f.Mailbox, "state": f.State, "transaction": f.Transaction, "after": after} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return get[SpoolEntries](ctx, c, messagesPath, q)
}

// SpooledMessage returns one message of the spool.
func (c *Client) SpooledMessage(ctx context.Context, transaction string) (SpoolMessage, error) {
	return get[SpoolMessage](ctx, c, messagesPath+"/"+url.PathEscape(transaction), nil)
}
