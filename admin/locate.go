package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/mail"
	"mailcutover/rollback/locate"
	"mailcutover/rollback/mailstore"
	"mailcutover/routing"
)

// Located says where a message lies in the mailboxes of its recipients.
type Located struct {
	Mailboxes []LocatedIn `json:"mailboxes"`
	Notes     []string    `json:"notes,omitempty" doc:"What may be missing here, and why"`
}

// LocatedIn is one mailbox.
type LocatedIn struct {
	Recipient string      `json:"recipient"`
	Agency    string      `json:"agency"`
	Mailbox   string      `json:"mailbox" doc:"Directory id"`
	Platforms []LocatedAt `json:"platforms" doc:"The one that holds the mailbox now is the first"`
}

// LocatedAt is what a mailbox has on one platform.
type LocatedAt struct {
	Platform string         `json:"platform"`
	Holds    bool           `json:"holds" doc:"It holds the mailbox now, or did last"`
	Places   []LocatedPlace `json:"places" doc:"Empty: nowhere in what was looked at"`
	Folders  int            `json:"folders" doc:"That were looked at"`
	Skipped  int            `json:"skipped,omitempty" doc:"That could not be"`
	Cut      bool           `json:"cut,omitempty" doc:"Not all messages that may be it could be compared"`
	Error    string         `json:"error,omitempty" doc:"Why the mailbox could not be looked at, or not to its end"`
}

// LocatedPlace is a folder that has the message.
type LocatedPlace struct {
	Where   string    `json:"where" enum:"inbox,sent,drafts,trash,junk,archive,another folder"`
	Folder  string    `json:"folder,omitempty" doc:"Its name, for the role operator only: users name their folders"`
	Arrived time.Time `json:"arrived" doc:"As the platform has it"`
	Deleted bool      `json:"deleted,omitempty" doc:"Marked for deletion: gone when the mailbox is next cleared up"`
	Ours    bool      `json:"ours" doc:"It came by us, with a transaction of the message; false: the platform shows no Received line of ours, or it came otherwise"`
}

const (
	locatePath = "/v1/locate"

	// locateTimeout bounds one search on all platforms.
	locateTimeout = 90 * time.Second

	// maxLocated is how many mailboxes are looked at for one message.
	maxLocated = 5

	// locateBack is how far back is looked for a message of which no ledger knows.
	locateBack = 14 * 24 * time.Hour
)

// locateCall names a message, and whose mailbox it is looked for in.
type locateCall struct {
	Body struct {
		Transaction string `json:"transaction,omitempty" maxLength:"100"`
		MessageID   string `json:"message_id,omitempty" maxLength:"1000" doc:"With or without brackets"`
		Recipient   string `json:"rcpt,omitempty" maxLength:"1000" doc:"Absent: all to whom the ledgers say it went"`
		Reason      string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

func (*locateCall) looksItself() {}

func (s *Server) registerLocate(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "locate-message", Method: http.MethodPost, Path: locatePath, Tags: []string{"ledger"},
		Summary: "Look in which folders of its recipients' mailboxes a message lies",
		Description: "Over IMAP, in all folders, on both platforms of the agency, by headers only; nothing is marked as read. Name a transaction or a Message-ID. " +
			"It is in the audit log with its reason before a mailbox is opened. The names of folders are for the role operator only.",
	}, func(ctx context.Context, in *locateCall) (*reply[Located], error) {
		return s.locate(ctx, in)
	})
}

// sought is a mailbox with the transactions by which the message went to it.
type sought struct {
	LocatedIn
	row          routing.Row
	agency       routing.Agency
	transactions []mail.TransactionID
}

func (s *Server) locate(ctx context.Context, in *locateCall) (*reply[Located], error) {
	ctx, cancel := context.WithTimeout(ctx, locateTimeout)
	defer cancel()
	b := &in.Body
	reason := strings.TrimSpace(b.Reason)
	switch {
	case reason == "":
		return nil, problem(http.StatusBadRequest, "say why, such as the ticket's number", "the reason is empty")
	case (b.Transaction == "") == (b.MessageID == ""):
		return nil, problem(http.StatusBadRequest, "", "name a transaction or a Message-ID, one of them")
	}
	known, err := s.trace(ctx, &traceQuery{Transaction: b.Transaction, MessageID: b.MessageID, Limit: 100})
	if err != nil {
		return nil, err
	}
	out := Located{Mailboxes: []LocatedIn{}, Notes: known.Body.Notes}
	boxes, err := s.whoHas(ctx, b.Recipient, &known.Body, &out)
	if err != nil {
		return nil, err
	}
	what := locate.Sought{MessageID: b.MessageID, Since: time.Now().Add(-locateBack)}
	subject := cmp.Or(b.Transaction, b.MessageID)
	for i := range known.Body.Messages {
		m := &known.Body.Messages[i]
		what.MessageID = cmp.Or(what.MessageID, m.MessageID)
		if len(m.Events) > 0 && (i == 0 || m.Events[0].Time.Before(what.Since)) {
			what.Since = m.Events[0].Time
		}
	}
	for i := range boxes {
		box := &boxes[i]
		if err := s.record(ctx, audit.Entry{Subject: fmt.Sprintf("message %s in mailbox %s, agency %s", subject, box.Mailbox, box.Agency), Reason: reason, After: "looked for in its folders"}); err != nil {
			return nil, err
		}
	}
	var looking sync.WaitGroup
	for i := range boxes {
		box := &boxes[i]
		w := what
		w.Transactions = box.transactions
		for j := range box.Platforms {
			looking.Go(func() { s.lookIn(ctx, box, &box.Platforms[j], w) })
		}
	}
	looking.Wait()
	for i := range boxes {
		out.Mailboxes = append(out.Mailboxes, boxes[i].LocatedIn)
	}
	return &reply[Located]{Body: out}, nil
}

// whoHas returns the mailboxes of a recipient, or of all to whom a message went.
func (s *Server) whoHas(ctx context.Context, rcpt string, known *Traces, out *Located) ([]sought, error) {
	names := []string{rcpt}
	if rcpt == "" {
		names = known.recipients()
	}
	state := s.Replica.State()
	var boxes []sought
	for _, name := range names {
		a, err := routing.ParseAddress(name)
		if err != nil {
			return nil, problem(http.StatusBadRequest, "write it as local-part@domain", "%s", err)
		}
		d := state.DecideAddress(a, s.Separator)
		m := state.Mapping(d.Agency)
		var row routing.Row
		ok := m != nil
		if ok {
			row, ok = m.Mailbox(d.Mailbox)
		}
		switch {
		case !ok && rcpt != "":
			return nil, notFound("see mailcutover route explain", "no mailbox has the address %q", name)
		case !ok:
			out.Notes = append(out.Notes, fmt.Sprintf("%s is no mailbox of the table now", name))
			continue
		case slices.ContainsFunc(boxes, func(b sought) bool { return b.row.Mailbox == row.Mailbox }):
			continue
		case len(boxes) == maxLocated:
			out.Notes = append(out.Notes, fmt.Sprintf("it went to more mailboxes than the %d that are looked at; name the recipient", maxLocated))
			return boxes, nil
		}
		if err := s.within(ctx, []routing.AgencyID{d.Agency}); err != nil {
			return nil, err
		}
		agency, _ := state.Agency(d.Agency)
		box := sought{row: row, agency: agency, LocatedIn: LocatedIn{Recipient: name, Agency: string(d.Agency), Mailbox: d.Mailbox.String()}}
		for _, id := range []routing.PlatformID{agency.Source, agency.Target} {
			box.Platforms = append(box.Platforms, LocatedAt{Platform: string(id), Holds: id == d.Platform, Places: []LocatedPlace{}})
		}
		slices.SortStableFunc(box.Platforms, func(a, b LocatedAt) int {
			switch {
			case a.Holds == b.Holds:
				return 0
			case a.Holds:
				return -1
			}
			return 1
		})
		box.transactions = known.of(s, d.Mailbox)
		boxes = append(boxes, box)
	}
	if len(boxes) == 0 {
		return nil, notFound("name the recipient: --rcpt", "no ledger says to which mailbox it went")
	}
	return boxes, nil
}

// recipients are those to whom a message may have gone, in the order of events.
func (t *Traces) recipients() (names []string) {
	for i := range t.Messages {
		for _, e := range t.Messages[i].Events {
			switch e.What {
			case "delivered", "accepted", "in doubt", "not acknowledged":
				for _, name := range e.Recipients {
					if !slices.Contains(names, name) {
						names = append(names, name)
					}
				}
			}
		}
	}
	return names
}

// of returns the transactions that had a recipient with this mailbox.
func (t *Traces) of(s *Server, box routing.MailboxID) (ids []mail.TransactionID) {
	state := s.Replica.State()
	for i := range t.Messages {
		m := &t.Messages[i]
		has := slices.ContainsFunc(m.Events, func(e TraceEvent) bool {
			return slices.ContainsFunc(e.Recipients, func(name string) bool {
				a, err := routing.ParseAddress(name)
				return err == nil && state.DecideAddress(a, s.Separator).Mailbox == box
			})
		})
		if id := mail.TransactionID(m.Transaction); has && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// lookIn looks in one mailbox on one platform.
func (s *Server) lookIn(ctx context.Context, box *sought, at *LocatedAt, w locate.Sought) {
	var store mailstore.Store
	if s.Mailboxes != nil {
		store = s.Mailboxes(routing.PlatformID(at.Platform))
	}
	if store == nil {
		at.Error = "its mailboxes can't be read: no platforms[].mailboxes is set for it"
		return
	}
	side := mailstore.Source
	if at.Platform == string(box.agency.Target) {
		side = mailstore.Target
	}
	session, err := store.Open(ctx, box.row, side)
	if err != nil {
		at.Error = err.Error()
		return
	}
	defer func() { _ = session.Close() }() // nothing was changed
	who := callerOf(ctx)
	names := who.has(mayOperate)
	found, err := locate.Find(ctx, session, w)
	switch {
	case err == nil:
	case names:
		at.Error = err.Error()
	default:
		at.Error = "look for a message: " + locateFailure(err).Error()
	}
	at.Folders, at.Skipped, at.Cut = found.Folders, found.Skipped, found.Cut
	for _, p := range found.Places {
		v := LocatedPlace{Where: p.Role.String(), Arrived: p.Arrived, Deleted: p.Deleted, Ours: p.Ours}
		if p.Role == mailstore.RoleNone {
			v.Where = "another folder"
		}
		if names {
			v.Folder = p.Folder
		}
		at.Places = append(at.Places, v)
	}
}

// errLocate is about a search that failed for a reason which only operators are told.
var errLocate = errors.New("not all could be looked at; an operator sees why")

// locateFailure is what a search failed by, without the platform's own words: they may have the name
// of a folder.
func locateFailure(err error) error {
	for _, kind := range []error{mailstore.ErrThrottled, mailstore.ErrTimeout, mailstore.ErrUnavailable, mailstore.ErrAuth, mailstore.ErrNoMailbox, mailstore.ErrProtocol} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return errLocate
}

// LocateQuery names a message by one of Transaction and MessageID.
type LocateQuery struct {
	Transaction, MessageID string
	Recipient              string // empty: all to whom the ledgers say it went
	Reason                 string
}

// Locate looks in which folders a message lies. It may take more than a minute.
func (c *Client) Locate(ctx context.Context, q LocateQuery) (Located, error) {
	var in locateCall
	in.Body.Transaction, in.Body.MessageID, in.Body.Recipient, in.Body.Reason = q.Transaction, q.MessageID, q.Recipient, q.Reason
	return postFor[Located](ctx, c, locatePath, in.Body, locateTimeout+callTimeout)
}
