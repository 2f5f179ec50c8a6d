package billing

import (
	"testing"

	"tollgate/models/modelstest"
)

func TestMain(m *testing.M) { modelstest.Main(m) }
