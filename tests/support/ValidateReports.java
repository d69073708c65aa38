// PixelMed's validator of structured reports, with two checks that its own command leaves off: the
// order of content items, and the numbers of templates. One start for many files.
//
//     java -cp /usr/share/java/pixelmed.jar tests/support/ValidateReports.java REPORT.dcm...

import com.pixelmed.validate.DicomSRValidator;

public class ValidateReports {
    public static void main(String[] files) throws Exception {
        for (String limit : new String[] {"ExprGrp", "ExprOp", "TotalOp"}) {
            // Its style sheets have more operators than Java trusts in one.
            System.setProperty("jdk.xml.xpath" + limit + "Limit", "0");
        }
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println(file);
            boolean steps = false, caseOfMeanings = true, ambiguousRows = false;
            boolean order = true, templates = true;
            System.out.println(
                validator.validate(file, steps, caseOfMeanings, ambiguousRows, order, templates));
        }
    }
}
