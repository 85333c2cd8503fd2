package admin

import (
	"context"
	"iter"

	"mailcutover/ledger"
)

// Ledger is the record of deliveries; *ledger.Ledger is one.
type Ledger interface {
	Find(ctx context.Context, q ledger.Query) iter.Seq2[ledger.Record, error]
	Status() ledger.Status
}
