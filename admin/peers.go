package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"mailcutover/admin/peer"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// peerCalls are those that nodes make to each other. With the nodes' secret nothing else can
// be called.
var peerCalls = []string{"list-sessions", "close-sessions", "trace", "list-ledger", "retained-status", "list-retained", "show-operation", "show-share", "list-deliveries", "list-back", "list-known", "fetch-watermarks", "incident-records"}

// Missing is a node that did not answer. What it would have said is not in the answer.
type Missing struct {
	Node  string `json:"node"`
	Error string `json:"error" doc:"Why"`

	status int // of HTTP; 0: there was no answer
}

// membersLook bounds what a call waits for the table, to learn which nodes there are.
const membersLook = time.Second

// others returns the other nodes of the table, without those that are evicted or dead. Those
// that gave up their lease have no sessions, only what is on their disks; with stopped they are
// among them.
func (s *Server) others(ctx context.Context, stopped bool) []peer.Member {
	ctx, cancel := context.WithTimeout(ctx, membersLook)
	defer cancel()
	n, err := s.Table.Nodes(ctx)
	if err != nil { // this node's copy doesn't know who stopped
		n = table.Nodes{Members: s.Replica.State().Members()}
	}
	var all []peer.Member
	for i := range n.Members {
		m := &n.Members[i]
		l, leased := n.Leases[m.Node]
		over := leased && l.Instance == m.Instance && l.GivenUp()
		if strings.EqualFold(string(m.Node), s.Node) || m.Evicted || m.Attested == m.Instance || over && !stopped {
			continue
		}
		all = append(all, peer.Member{Node: string(m.Node), Address: m.Address})
	}
	return all
}

// excluded returns the nodes that [Server.others] leaves out since people have evicted them or said that they are off. What
// asks for all that nodes have on their disks names them: theirs isn't looked at.
func (s *Server) excluded() (all []Missing) {
	for _, m := range s.Replica.State().Members() {
		switch {
		case strings.EqualFold(string(m.Node), s.Node):
		case m.Evicted:
			all = append(all, Missing{Node: string(m.Node), Error: "it isn't asked, since it was evicted: what is on its disk is not here"})
		case m.Attested == m.Instance:
			all = append(all, Missing{Node: string(m.Node), Error: "it isn't asked, since people said that it is off: what is on its disk is not here"})
		}
	}
	return all
}

// elsewhere makes a call, with the caller's rights, to these nodes; each answer is given to
// take, by node. It returns who did not answer. A call that a node has made goes no further.
func elsewhere[T any](ctx context.Context, s *Server, members []peer.Member, c peer.Call, take func(node string, answer T)) []Missing {
	missing := []Missing{}
	if len(members) == 0 || requestOf(ctx).peer != "" {
		return missing
	}
	if s.Peers == nil {
		for _, m := range members {
			missing = append(missing, Missing{Node: m.Node, Error: peer.ErrNoSecret.Error()})
		}
		return missing
	}
	for _, a := range s.Peers.Call(ctx, members, behalfOf(ctx, s.Node), c) {
		var answer T
		err := a.Err
		if err == nil && a.Status != http.StatusOK {
			err = statusError(a.Status, a.Body)
		}
		if err == nil {
			err = json.Unmarshal(a.Body, &answer)
		}
		if err != nil {
			missing = append(missing, Missing{a.Node, err.Error(), a.Status})
			continue
		}
		take(a.Node, answer)
	}
	return missing
}

// statusError is what a node's refusal says.
func statusError(status int, body []byte) error {
	var p Problem
	if json.Unmarshal(body, &p) == nil && p.Detail != "" {
		return fmt.Errorf("it answers %d: %s", status, p.Detail)
	}
	return fmt.Errorf("it answers %d %s", status, http.StatusText(status))
}

// behalfOf says for whom this node calls others.
func behalfOf(ctx context.Context, node string) peer.Behalf {
	req := requestOf(ctx)
	c := &req.caller
	return peer.Behalf{
		Node: node, Request: req.id, Person: c.person, Token: c.token, Roles: texts(c.roles), Agencies: texts(c.agencies), Everything: c.everything,
	}
}

// admitPeer takes from another node on whose behalf it calls.
func (s *Server) admitPeer(req *request, r *http.Request) *Problem {
	secret := ""
	if s.PeerSecret != nil {
		secret = s.PeerSecret()
	}
	b, ok := peer.Open(r, secret)
	if !ok {
		return problem(http.StatusUnauthorized, "admin.peer.secret_file of both nodes", "not a node that knows the secret")
	}
	req.peer, req.of = b.Node, b.Request
	req.caller = caller{token: b.Token, person: b.Person, everything: s.Lab && b.Everything}
	for _, role := range b.Roles {
		req.caller.roles = append(req.caller.roles, Role(role))
	}
	for _, id := range b.Agencies {
		req.caller.agencies = append(req.caller.agencies, routing.AgencyID(id))
	}
	return nil
}

// refusePeer refuses to other nodes what they don't call.
func refusePeer(ctx context.Context, operation string) error {
	if requestOf(ctx).peer != "" && !slices.Contains(peerCalls, operation) {
		return problem(http.StatusForbidden, "", "%s is not for other nodes", operation)
	}
	return nil
}
