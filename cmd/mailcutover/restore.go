package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

func newRestoreCommand(c *connection) *cobra.Command {
	var reason, approve string
	var older, although, dryRun bool
	cmd := c.command(&cobra.Command{
		Use: "restore [FILE]", Short: "Fill a table that lost everything from a backup", Args: cobra.MaximumNArgs(1),
		Long: "Fill an empty table from a backup. Every agency is locked afterwards, and those of which a\nnode has seen more stay closed until they are reconciled: what the backup says alone opens\nnothing. It takes two people: one names the file, another says --approve DIGEST at the same\nnode. Without a file it shows what somebody else wants to restore there.\n\n" +
			"Where a node still has its copy, mailcutover table bootstrap is better: it is newer. So this\nis refused where any node has seen more, unless --older is said.\n\nA table that was restored is not emptied again by any command; agencies that should stay\nclosed stay locked.",
		Example: "  mailcutover restore /var/backups/table.ndjson --dry-run --reason 'what would it do'\n  mailcutover restore /var/backups/table.ndjson --reason 'redis-1 and all nodes are lost'\n" +
			"  mailcutover restore --approve 3f1c... --reason 'same digest as in the audit log'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		var r admin.Restoration
		var err error
		switch {
		case approve != "":
			if r, err = client.ApproveRestore(cmd.Context(), approve, reason); err != nil {
				return err
			}
			return c.showRestoration(cmd, r, nil)
		case len(args) == 0:
			if r, err = client.Restoration(cmd.Context()); err != nil {
				return err
			}
			return c.showRestoration(cmd, r, nil)
		}
		file, err := os.ReadFile(args[0])
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		if r, err = client.ProposeRestore(cmd.Context(), bytes.NewReader(file), reason, older, true); err != nil {
			return err
		}
		copies := admin.Foundation{Node: r.Node, Term: r.Term, Revision: r.Revision, Members: r.Members}
		others := c.otherCopies(cmd.Context(), copies)
		if dryRun {
			return c.showRestoration(cmd, r, others)
		}
		for _, o := range others {
			switch {
			case o.newer(copies) && !older:
				return withHint(fmt.Errorf("node %s has seen more than the backup: term %d, revision %d", o.Node, o.Term, o.Revision),
					"mailcutover table bootstrap --from-replicas --api "+o.API+" fills the table from its copy; --older restores all the same")
			case o.Error != "" && !although:
				return withHint(fmt.Errorf("node %s doesn't say what it has seen: %s", o.Node, o.Error),
					"start it; or, if it is gone for good, say --although-missing: if it has seen more, that is found when it comes back")
			}
		}
		if r, err = client.ProposeRestore(cmd.Context(), bytes.NewReader(file), reason, older, false); err != nil {
			return err
		}
		return c.showRestoration(cmd, r, others)
	})
	f := cmd.Flags()
	f.StringVar(&reason, "reason", "", "why; it is journaled")
	f.StringVar(&approve, "approve", "", "approve what another person proposed, by its digest")
	f.BoolVar(&older, "older", false, "also if nodes have seen more: the agencies concerned stay closed until they are reconciled")
	f.BoolVar(&although, "although-missing", false, "also if a node can't be asked what it has seen")
	f.BoolVar(&dryRun, "dry-run", false, "only say what it would do")
	cmd.MarkFlagsMutuallyExclusive("approve", "dry-run")
	return cmd
}

func (c *connection) showRestoration(cmd *cobra.Command, r admin.Restoration, others []otherCopy) error {
	all := struct {
		Restoration admin.Restoration `json:"restoration"`
		Others      []otherCopy       `json:"others"`
	}{r, others}
	return c.show(cmd, all, func(w io.Writer) {
		if r.Done != "" {
			fmt.Fprintf(w, "the table is filled: %s\n", r.Done)
			if len(r.Newer)+len(r.Gone) > 0 {
				fmt.Fprintf(w, "closed until they are reconciled: %s\n", strings.Join(append(r.Newer, r.Gone...), ", "))
			}
			fmt.Fprintln(w, "next: mailcutover node list, until all have rejoined, are attested or evicted; mailcutover table reconcile where an alarm asks for it;\nthen compare each agency with what the audit log says of it, and mailcutover agency unlock")
			return
		}
		pairs(w, [2]string{"backup of", r.Made.Format(time.RFC3339) + ", by " + r.By + " from node " + r.Of}, [2]string{"digest", r.Digest},
			[2]string{"term", fmt.Sprint(r.Term)}, [2]string{"revision", fmt.Sprint(r.Revision)},
			[2]string{"agencies", fmt.Sprintf("%d, all are locked by it", len(r.Agencies))}, [2]string{"mailboxes", fmt.Sprint(r.Mailboxes)},
			[2]string{"open operations", strings.Join(r.Operations, ", ")},
			[2]string{"copy of node " + r.Node, fmt.Sprintf("term %d, revision %d", r.HereTerm, r.HereRevision)},
			[2]string{"seen newer here", strings.Join(r.Newer, ", ")}, [2]string{"not in the backup", strings.Join(r.Gone, ", ")},
			[2]string{"proposed by", r.Proposer}, [2]string{"approved by", strings.Join(r.Approvers, ", ")})
		if r.Older {
			fmt.Fprintln(w, "\nThis node has seen more than the backup: mailcutover table bootstrap is better.")
		}
		printOthers(w, others, admin.Foundation{Term: r.Term, Revision: r.Revision})
		if r.Proposer != "" {
			fmt.Fprintf(w, "\nnext: another person: mailcutover restore --approve %s --reason ... --api %s\n", r.Digest, c.base())
		}
	})
}
