package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"mailcutover/admin/peer"
	"mailcutover/rollback/recall/desk"
	"mailcutover/routing"
)

const (
	deliveriesPath = "/v1/recall-deliveries"
	watermarksPath = "/v1/watermarks/"

	// ledgerPatience is how long another node may read its ledger, and watermarkPatience how
	// long it may take to send watermarks.
	ledgerPatience    = time.Minute
	watermarkPatience = 30 * time.Second
)

func sharePath(id string) string { return recallsPath + "/" + url.PathEscape(id) + "/share" }

// watermarkBytes is a set of watermarks as it lies on a node's disk.
type watermarkBytes struct {
	Digest string `json:"digest"`
	Bytes  []byte `json:"bytes"`
}

// RecallVersion names a run in the version that the asking node works by.
type RecallVersion struct {
	ID     string `path:"id" maxLength:"200"`
	Round  int    `query:"round" doc:"How often a share was taken over"`
	Copies bool   `query:"copies" doc:"Whether retained copies are delivered"`
}

func (v *RecallVersion) version() desk.Version { return desk.Version{Round: v.Round, Copies: v.Copies} }

// registerRecallPeers registers what nodes ask each other for.
func (s *Server) registerRecallPeers(api huma.API) {
	tags := []string{"recalls"}
	handle(s, api, huma.Operation{
		OperationID: "show-share", Method: http.MethodGet, Path: recallsPath + "/{id}/share", Tags: tags, Summary: "How far this node is with its share of a run",
	}, func(ctx context.Context, in *struct {
		ID    string `path:"id" maxLength:"200"`
		Boxes bool   `query:"mailboxes"`
	}) (*reply[desk.Share], error) {
		k, err := s.recallDesk()
		if err != nil {
			return nil, err
		}
		share, err := k.Share(ctx, desk.ID(in.ID), in.Boxes)
		if who := callerOf(ctx); err == nil && !who.has(mayOperate) {
			for i := range share.Boxes {
				for j := range share.Boxes[i].NotBack {
					share.Boxes[i].NotBack[j].Folder = "" // users name folders
				}
			}
		}
		return &reply[desk.Share]{Body: share}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "list-deliveries", Method: http.MethodGet, Path: deliveriesPath, Tags: tags,
		Summary: "Transactions that this node delivered to a platform for an agency, by mailbox",
	}, func(ctx context.Context, in *struct {
		Agency   string    `query:"agency" maxLength:"63" doc:"Required"`
		Platform string    `query:"platform" maxLength:"63" doc:"Required"`
		Since    time.Time `query:"since" doc:"Absent: all that the ledger has"`
	}) (*reply[desk.Delivered], error) {
		k, err := s.recallDesk()
		if err != nil {
			return nil, err
		}
		if in.Agency == "" || in.Platform == "" {
			return nil, problem(http.StatusBadRequest, "", "name an agency and a platform")
		}
		f, err := k.Deliveries(ctx, desk.Query{Agency: routing.AgencyID(in.Agency), Platform: routing.PlatformID(in.Platform), Since: in.Since})
		return &reply[desk.Delivered]{Body: f}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "list-back", Method: http.MethodGet, Path: recallsPath + "/{id}/back", Tags: tags,
		Summary: "Which of the nodes' deliveries are on the winning platform, by this node's journals",
	}, func(ctx context.Context, in *RecallVersion) (*reply[desk.Back], error) {
		k, err := s.recallDesk()
		if err != nil {
			return nil, err
		}
		b, err := k.Back(ctx, desk.ID(in.ID), in.version())
		return &reply[desk.Back]{Body: b}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "list-known", Method: http.MethodGet, Path: recallsPath + "/{id}/known", Tags: tags,
		Summary:     "What this node knows of the mailboxes that another one brings, for that one",
		Description: "Its journals, and the retained copies that it has delivered or is about to.",
	}, func(ctx context.Context, in *struct {
		RecallVersion
		Node  string `query:"node" maxLength:"253" doc:"Required: the one that brings them"`
		After string `query:"after" maxLength:"38" doc:"The next of the page before; absent: the first page"`
	}) (*reply[desk.Known], error) {
		k, err := s.recallDesk()
		if err != nil {
			return nil, err
		}
		if requestOf(ctx).peer == "" { // journals have the names of users' folders
			return nil, problem(http.StatusForbidden, "see mailcutover recall status", "nodes ask each other for this")
		}
		known, err := k.Known(ctx, desk.ID(in.ID), in.version(), routing.NodeID(in.Node), in.After)
		return &reply[desk.Known]{Body: known}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "fetch-watermarks", Method: http.MethodGet, Path: watermarksPath + "{digest}", Tags: tags, Summary: "Watermarks that this node keeps, for another node",
	}, func(_ context.Context, in *struct {
		Digest string `path:"digest" maxLength:"64"`
	}) (*reply[watermarkBytes], error) {
		k, err := s.recallDesk()
		if err != nil {
			return nil, err
		}
		d, err := routing.ParseDigest(in.Digest)
		if err != nil {
			return nil, err
		}
		text, err := k.WatermarkBytes(d)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, notFound("ask another node", "this node has no watermarks %s", in.Digest)
		}
		return &reply[watermarkBytes]{Body: watermarkBytes{Digest: in.Digest, Bytes: text}}, err
	})
}

// RecallPeers asks the other nodes what a recall needs, on this node's own behalf. It
// implements desk.Nodes.
func (s *Server) RecallPeers() desk.Nodes { return recallPeers{s} }

type recallPeers struct{ *Server }

// asNode is the context of calls that no person has made.
func (s *Server) asNode(ctx context.Context, operation string) context.Context {
	return context.WithValue(ctx, requestKey{}, &request{
		id: uuid.NewString(), caller: caller{token: "-", person: "node " + s.Node, roles: []Role{RoleViewer}}, operation: operation,
	})
}

// silent says who did not answer. A node that can't be called by the configuration is lost: asking
// again helps as little. One that refuses for now is there (desk.ErrNotYet).
func (p recallPeers) silent(missing []Missing) (all []desk.Silent) {
	for _, m := range missing {
		all = append(all, desk.Silent{Node: routing.NodeID(m.Node), Reason: "it did not answer: " + m.Error, Lost: p.Peers == nil, Later: m.status == http.StatusConflict})
	}
	return all
}

// Deliveries implements desk.Nodes.
func (p recallPeers) Deliveries(ctx context.Context, q desk.Query) (all []desk.Delivered, silent []desk.Silent) {
	ctx = p.asNode(ctx, "list-deliveries")
	v := url.Values{"agency": {string(q.Agency)}, "platform": {string(q.Platform)}}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	missing := elsewhere(ctx, p.Server, p.others(ctx, true), peer.Call{Method: http.MethodGet, Path: deliveriesPath, Query: v, Timeout: ledgerPatience},
		func(_ string, theirs desk.Delivered) { all = append(all, theirs) })
	return all, p.silent(missing)
}

func versionQuery(v desk.Version) url.Values {
	return url.Values{"round": {strconv.Itoa(v.Round)}, "copies": {strconv.FormatBool(v.Copies)}}
}

// Back implements desk.Nodes.
func (p recallPeers) Back(ctx context.Context, id desk.ID, v desk.Version) (all []desk.Back, silent []desk.Silent) {
	ctx = p.asNode(ctx, "list-back")
	c := peer.Call{Method: http.MethodGet, Path: recallsPath + "/" + url.PathEscape(string(id)) + "/back", Query: versionQuery(v), Timeout: ledgerPatience}
	missing := elsewhere(ctx, p.Server, p.others(ctx, true), c, func(_ string, theirs desk.Back) { all = append(all, theirs) })
	return all, p.silent(missing)
}

// Known implements desk.Nodes.
func (p recallPeers) Known(ctx context.Context, id desk.ID, v desk.Version, node routing.NodeID, take func(*desk.Known) error) (silent []desk.Silent) {
	ctx = p.asNode(ctx, "list-known")
	for _, m := range p.others(ctx, true) {
		for after, more := "", true; more; {
			q := versionQuery(v)
			q.Set("node", string(node))
			if after != "" {
				q.Set("after", after)
			}
			more = false
			var refused error
			c := peer.Call{Method: http.MethodGet, Path: recallsPath + "/" + url.PathEscape(string(id)) + "/known", Query: q, Timeout: ledgerPatience}
			missing := elsewhere(ctx, p.Server, []peer.Member{m}, c, func(_ string, theirs desk.Known) {
				refused = take(&theirs)
				more, after = refused == nil && theirs.Next != "", theirs.Next
			})
			silent = append(silent, p.silent(missing)...)
			if refused != nil {
				silent = append(silent, desk.Silent{Node: routing.NodeID(m.Node), Reason: "what it told can't be used: " + refused.Error()})
			}
		}
	}
	return silent
}

// Watermarks implements desk.Nodes.
func (p recallPeers) Watermarks(ctx context.Context, d routing.Digest) ([]byte, error) {
	ctx = p.asNode(ctx, "fetch-watermarks")
	var text []byte
	var errs []error
	missing := elsewhere(ctx, p.Server, p.others(ctx, true), peer.Call{Method: http.MethodGet, Path: watermarksPath + d.String(), Timeout: watermarkPatience},
		func(_ string, theirs watermarkBytes) { text = theirs.Bytes })
	if text != nil {
		return text, nil
	}
	for _, m := range missing {
		errs = append(errs, fmt.Errorf("node %s: %s", m.Node, m.Error))
	}
	return nil, fmt.Errorf("no node has watermarks %s: %w", d, errors.Join(errs...))
}
