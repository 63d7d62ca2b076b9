"""Ground floor: types, errors, the manifest and the operator's definition. Imports stdlib and numpy only."""
