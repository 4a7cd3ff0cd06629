-- The measures of the course's reports. NULL: not measured, in the checks of an older klcli.
ALTER TABLE gradient_checks ADD COLUMN decimals INTEGER;
ALTER TABLE gradient_checks ADD COLUMN threshold REAL;
ALTER TABLE gradient_errors ADD COLUMN equal_decimals INTEGER;
ALTER TABLE gradient_errors ADD COLUMN mismatches REAL;
ALTER TABLE gradient_errors ADD COLUMN ratio_of_sums REAL;
ALTER TABLE gradient_errors ADD COLUMN numerical_mean REAL;
ALTER TABLE gradient_errors ADD COLUMN numerical_std REAL;
ALTER TABLE gradient_errors ADD COLUMN difference_mean REAL;
ALTER TABLE gradient_errors ADD COLUMN difference_std REAL;
ALTER TABLE gradient_errors ADD COLUMN difference_max REAL;
