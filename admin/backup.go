package admin

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/routing"
	"mailcutover/routing/backup"
)

const (
	backupPath  = "/v1/table/backup"
	restorePath = "/v1/table/restore"

	// backupType is the content type of a backup: JSON values, one in each line.
	backupType = exportType

	// maxBackupBytes bounds a backup: a mailbox has some 200 bytes in it.
	maxBackupBytes = 256 << 20

	// backupTimeout bounds the way of a backup from or to a node.
	backupTimeout = 5 * time.Minute

	headerBackupDigest = "Mailcutover-Backup-Digest"
)

// backupAnswer is a backup as it is sent.
type backupAnswer struct {
	ContentType string `header:"Content-Type"`
	Digest      string `header:"Mailcutover-Backup-Digest" doc:"As its last line has it, and the audit log"`
	Body        []byte
}

func (s *Server) registerBackup(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "backup-table", Method: http.MethodGet, Path: backupPath, Tags: []string{"table"},
		Summary:     "A backup of the table: this node's copy of it, at one revision",
		Description: "A JSON value in each line; the last one has the SHA-256 of all before. It has names of mailboxes, and no secrets. The digest is in the audit log before the first line is sent. mailcutover backup verify checks a file, offline.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			backupType: {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}, func(ctx context.Context, in *struct {
		Reason string `query:"reason" required:"true" minLength:"1" maxLength:"1000" doc:"Why; stands in the audit log"`
	}) (*backupAnswer, error) {
		reason, err := checkReason(in.Reason)
		if err != nil {
			return nil, err
		}
		if st := s.Replica.Status(); !st.Open {
			return nil, problem(http.StatusServiceUnavailable, "ask another node; what to do for an empty table, mailcutover table bootstrap says", "this node's copy may be older than the table: %s", st.Reason)
		}
		var out bytes.Buffer
		digest, err := s.Control.Backup(&out, backup.Header{Made: time.Now().UTC(), Node: routing.NodeID(s.Node), Person: callerOf(ctx).person})
		if err != nil {
			return nil, problem(http.StatusConflict, "", "%s", err)
		}
		if err := s.record(ctx, audit.Entry{Subject: "table", Reason: reason, After: fmt.Sprintf("given out: a backup of %d bytes", out.Len()), Digests: []string{digest.String()}}); err != nil {
			return nil, err
		}
		return &backupAnswer{backupType, digest.String(), out.Bytes()}, nil
	})
}

// ErrBackup is wrapped where a backup isn't what the node says it sent.
var ErrBackup = errors.New("the backup is not what the node sent")

// Backup writes a backup of the table to w, once it is verified, and returns what it is.
func (c *Client) Backup(ctx context.Context, w io.Writer, reason string) (*backup.Copy, error) {
	ctx, cancel := context.WithTimeout(ctx, backupTimeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, backupPath, url.Values{"reason": {reason}}, "", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBackupBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%w: read the backup: %w", ErrUnreachable, err)
	}
	got, err := backup.Read(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	if said := res.Header.Get(headerBackupDigest); !strings.EqualFold(said, hex.EncodeToString(got.Digest[:])) {
		return nil, fmt.Errorf("%w: its digest is %s, the node said %s", ErrBackup, got.Digest, said)
	}
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("write the backup: %w", err)
	}
	return got, nil
}
