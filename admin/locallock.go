package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/node"
	"mailcutover/routing"
)

// LocalLocker closes agencies on this node alone; *node.Keeper does.
type LocalLocker interface {
	LockLocal(id routing.AgencyID, who, reason string) (node.LocalLock, error)
	LocalLocks() []node.LocalLock
}

// LocalLock is an agency that is closed on one node, until the table has the lock.
type LocalLock struct {
	Agency  string    `json:"agency"`
	Node    string    `json:"node" doc:"Which it is closed on; the others may serve it"`
	Person  string    `json:"person"`
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
	Awaited int       `json:"awaited" doc:"Final dots that were sent before, and whose answer is awaited"`
	InDoubt int       `json:"in_doubt" doc:"Messages whose answer was lost, and that may still arrive"`
}

// LocalLocks is a list of them.
type LocalLocks struct {
	Locks []LocalLock `json:"locks"`
}

func (s *Server) localLockView(l *node.LocalLock) LocalLock {
	load := s.Gate.Load(l.Agency)
	return LocalLock{
		Agency: string(l.Agency), Node: s.Node, Person: l.Who, Reason: l.Reason, Since: l.Since,
		Awaited: load.Dotted, InDoubt: load.InDoubt,
	}
}

func (s *Server) registerLocalLocks(api huma.API) {
	tags := []string{"agencies"}
	handle(s, api, huma.Operation{
		OperationID: "lock-agency-locally", Method: http.MethodPost, Path: "/v1/agencies/{id}/lock-local", Tags: tags,
		Summary:     "Close an agency on this node alone, without the table",
		Description: "For when the table can't be reached: it needs nothing but this node's disk. The other nodes go on. As soon as the table can be reached the agency is locked there, for all, and only the table can open it again.",
	}, func(ctx context.Context, in *changeAgency) (*reply[LocalLock], error) {
		reason, err := checkReason(in.Body.Reason)
		if err != nil {
			return nil, err
		}
		id, err := routing.ParseAgencyID(in.ID)
		if err != nil {
			return nil, noAgency(in.ID)
		}
		// A node that knows no table can't know better than who asks.
		if state := s.Replica.State(); state.Position().Incarnation != "" {
			if _, known := state.Agency(id); !known {
				return nil, noAgency(in.ID)
			}
		}
		// Closing comes before its record: a disk that is full must not keep it open.
		l, err := s.LocalLocks.LockLocal(id, callerOf(ctx).person, reason)
		if err != nil {
			return nil, err
		}
		if err := s.record(ctx, audit.Entry{Subject: "agency " + in.ID + " on node " + s.Node, Reason: reason, Emergency: true, Operation: l.ID}); err != nil {
			return nil, fmt.Errorf("agency %s is closed on this node, but the audit log doesn't have it: %w", in.ID, err)
		}
		return &reply[LocalLock]{Body: s.localLockView(&l)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "list-local-locks", Method: http.MethodGet, Path: "/v1/local-locks", Tags: tags,
		Summary: "The agencies that are closed on this node alone",
	}, func(context.Context, *struct{}) (*reply[LocalLocks], error) {
		out := LocalLocks{Locks: []LocalLock{}}
		for _, l := range s.LocalLocks.LocalLocks() {
			out.Locks = append(out.Locks, s.localLockView(&l))
		}
		return &reply[LocalLocks]{Body: out}, nil
	})
}

// LockLocal closes an agency on the client's node alone.
func (c *Client) LockLocal(ctx context.Context, id, reason string) (LocalLock, error) {
	return post[LocalLock](ctx, c, "/v1/agencies/"+url.PathEscape(id)+"/lock-local", reasoned{Reason: reason})
}

// LocalLocks returns the agencies that are closed on the client's node alone.
func (c *Client) LocalLocks(ctx context.Context) ([]LocalLock, error) {
	out, err := get[LocalLocks](ctx, c, "/v1/local-locks", nil)
	return out.Locks, err
}
