package enforcement

import (
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// BenchmarkPeek looks up one person among 2,000 who have a record for the same month, with a
// statement that was prepared on an empty database.
func BenchmarkPeek(b *testing.B) {
	ctx := b.Context()
	db, err := models.Open(ctx, modelstest.Postgres(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	p, err := openPostgres(ctx, db)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.close)
	wants := []models.RecordKey{{Email: "u1707@example.com", At: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}}
	if _, err := p.peek(ctx, wants); err != nil { // PostgreSQL plans the statement now and reuses the plan
		b.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, growBy(0, 2000)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := p.peek(ctx, wants); err != nil {
			b.Fatal(err)
		}
	}
}
